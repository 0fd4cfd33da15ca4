"""Progress: how far the sweeps of a name have come, from their manifests, notes and results alone.

No process needs to live for it, nothing is composed, and torch is not imported.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tabulate import tabulate

from conf import Until
from data.disk import replacing
from runner.launch.notes import STAYS
from runner.launch.task import labels
from runner.naming import command_of
from runner.results import Results
from runner.state.manifest import Listed, Manifest, manifests
from runner.state.states import Note, State, notes_of, shared_at_work


@dataclass(frozen=True)
class Seen:
    """A cell of a sweep, how it stands, and why. A finished cell is a hit."""

    cell: Listed
    state: State
    why: str = ""

    @property
    def command(self) -> str:
        """The command that makes this cell alone."""
        return command_of(self.cell.overrides)


@dataclass(frozen=True)
class SweepProgress:
    """The cells of all sweeps of a name, and the commands of the sweeps that have something left.

    `shared` holds what is known of each training at work that several cells wait for, by its label.
    """

    cells: Sequence[Seen]
    commands: Sequence[str]
    shared: Mapping[str, str]

    @property
    def left(self) -> list[Seen]:
        """The cells without a result. One that diverged has a result, which says so."""
        return [seen for seen in self.cells if seen.state.is_left]

    def text(self) -> str:
        """Return the number of cells in each state, a line for each that is not done, and the commands;
        nothing if no sweep of the name is known."""
        if not self.cells:
            return ""
        number = Counter("done" if seen.state is State.hit else seen.state.value for seen in self.cells)
        states = ", ".join(f"{count} {state}" for state, count in sorted(number.items()))
        head = f"{len(self.cells)} cells of its sweeps: {states}"
        told = [seen for seen in self.cells if seen.state is not State.hit]
        if not told:
            return head
        names = dict(zip(self.cells, labels([seen.cell.overrides for seen in self.cells]), strict=True))
        lines = [(State.running.value, label, why) for label, why in self.shared.items()]
        lines += [(seen.state.value, names[seen], seen.why) for seen in told]
        texts = [head, tabulate(lines, tablefmt="plain", disable_numparse=True)]
        if len(told) > len(self.left):
            texts.append(STAYS)
        if self.left:
            commands = [f"  {command}" for command in self.commands]
            texts += ["say again for what is left:", *commands]
        return "\n".join(texts)


def progress(root: Path, name: str) -> SweepProgress:
    """Return how far the sweeps of a name below `paths.root` have come.

    A cell that several sweeps ask for counts once. Sweeps that only fill the store have no results, and
    are left out; so is a sweep whose folder was deleted.
    """
    sweeps = [sweep for sweep in manifests(root) if any(cell.name == name for cell in sweep.cells)]
    notes = notes_of(sweeps)
    found: dict[str, Seen] = {}
    for sweep in sweeps:
        for cell in sweep.cells:
            if cell.name == name and cell.key is not None and cell.until == Until.end.value:
                found[cell.key] = _seen(root, cell, notes.get((name, cell.key)))
    left = {key for key, seen in found.items() if seen.state.is_left}
    shared = {label: why for sweep in sweeps for label, why in shared_at_work(sweep).items()}
    return SweepProgress(list(found.values()), _commands(sweeps, left), shared)


def export(root: Path, name: str) -> Path | None:
    """Write the manifests of all sweeps of a name as one file beside its table, for a published result.

    It holds the commands, their environments and commits, and the overrides of every cell of the name.
    Return its path, or None if no sweep of the name is known.
    """
    sweeps = [asdict(_only(sweep, name)) for sweep in manifests(root)]
    known = [{**sweep, "folder": str(sweep["folder"])} for sweep in sweeps if sweep["cells"]]
    if not known:
        return None
    path = root / "tables" / f"{name}_manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scratch.write_text(json.dumps({"sweeps": known}, indent=1) + "\n")
    return path


def _only(sweep: Manifest, name: str) -> Manifest:
    return replace(sweep, cells=[cell for cell in sweep.cells if cell.name == name])


def _seen(root: Path, cell: Listed, note: Note | None) -> Seen:
    assert cell.name is not None and cell.key is not None
    if note is not None and note.state is State.running:
        return Seen(cell, note.state, note.why)
    result = Results(root / "results").find(cell.name, cell.key)
    if result is not None and result.status == "diverged":
        return Seen(cell, State.diverged, result.error or "")
    if result is not None:
        return Seen(cell, State.hit)
    return Seen(cell, State.missing) if note is None else Seen(cell, note.state, note.why)


def _commands(sweeps: Sequence[Manifest], left: set[str]) -> list[str]:
    """Return the commands that make what is left, the latest first, each for cells that no later one
    makes."""
    commands: list[str] = []
    for sweep in reversed(sweeps):
        keys = {cell.key for cell in sweep.cells if cell.key in left}
        if keys and sweep.command not in commands:
            commands.append(sweep.command)
        left = left - keys
    return commands
