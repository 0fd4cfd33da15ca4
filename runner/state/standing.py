"""Standings: how each cell stands, from the store, the results and the notes of sweeps."""

import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from conf import Until
from metrics.metric import Metric
from runner.launch.notes import BEGUN, outcome
from runner.plan import Plan
from runner.results import Result, Results
from runner.state.cells import Cell
from runner.state.manifest import Manifest
from runner.state.trainings import Training, trainings
from runner.store import Store


class State(Enum):
    """How a cell stands.

    A hit would be made of what is stored alone. A diverged cell would diverge again with the same code.
    """

    hit = "hit"
    running = "running"
    missing = "missing"
    failed = "failed"
    diverged = "diverged"


@dataclass(frozen=True)
class Standing:
    """A cell's state, the reason in words where there is one, and its trainings."""

    cell: Cell
    state: State
    why: str = ""
    trainings: list[Training] = field(default_factory=list)

    @property
    def missing(self) -> list[Training]:
        """The trainings that are not stored."""
        return [each for each in self.trainings if not each.stored]


@dataclass(frozen=True)
class Note:
    """What the notes of sweeps say last of a cell: that it runs, or why it failed."""

    state: State
    why: str


# Cells by the name and the key of their results.
Notes = Mapping[tuple[str, str], Note]


def standings(cells: Iterable[Cell], notes: Notes) -> list[Standing]:
    """Return how the cells stand. Nothing is trained or written."""
    return [_standing(cell, notes) for cell in cells]


def _standing(cell: Cell, notes: Notes) -> Standing:
    plan = cell.plan
    if plan is None:
        return Standing(cell, State.failed, cell.refused)
    found = trainings(plan, Store(plan.root / "store"))
    state, why = _state(cell, plan, found, notes.get((plan.name, plan.key)))
    return Standing(cell, state, why, found)


def _state(cell: Cell, plan: Plan, found: Iterable[Training], note: Note | None) -> tuple[State, str]:
    """Return the state of a cell with a plan, and the reason. The note of a run counts before an earlier
    result, and a failure only if there is something left to do."""
    if note is not None and note.state is State.running:
        return State.running, note.why
    absent = any(not each.stored for each in found)
    if plan.until is not Until.end:
        lacks, result = "", None
    else:
        result = Results(plan.root / "results").find(plan.name, plan.key)
        lacks = "no result" if result is None else _lacks(cell, plan, result)
    if result is not None and result.status == "diverged":
        return State.diverged, result.error or ""
    if not absent and not lacks:
        return State.hit, ""
    return (State.missing, lacks) if note is None else (note.state, note.why)


def _lacks(cell: Cell, plan: Plan, result: Result) -> str:
    """Return the scores that a cell's result lacks; nothing if the same overrides have made it."""
    if sorted(result.overrides) == sorted(cell.overrides):
        return ""
    lacking = lacking_scores(plan.metrics, result)
    return f"no score of {', '.join(lacking)}" if lacking else ""


def lacking_scores(metrics: Iterable[Metric], result: Result) -> list[str]:
    """Return the metrics of which a result has no score, nor a reason why there is none.

    A result that was written before results said what their scores mean lacks nothing.
    """
    if not result.about:
        return []
    return [
        type(metric).__name__
        for metric in metrics
        if not metric.about().keys() & result.about.keys()
        and type(metric).__name__ not in result.undefined
    ]


def notes_of(sweeps: Iterable[Manifest]) -> dict[tuple[str, str], Note]:
    """Return what the last sweep that began a cell says of it, if it has not ended well."""
    found: dict[tuple[str, str], Note] = {}
    for sweep in sweeps:  # the oldest first
        for cell in sweep.cells:
            if cell.name is None or cell.key is None:
                continue
            folder = sweep.folder / str(cell.number)
            note = _note(folder)
            if note is not None:
                found[cell.name, cell.key] = note
            elif outcome(folder) is not None:
                found.pop((cell.name, cell.key), None)
    return found


def _note(folder: Path) -> Note | None:
    """Return what the folder of a cell says, or None if it has not begun or has ended well."""
    with suppress(FileNotFoundError):
        ended = outcome(folder)
        if ended is not None:
            return None if ended.failure is None else Note(State.failed, ended.failure.strip())
        begun = folder / BEGUN
        host, process = begun.read_text().split()
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(begun.stat().st_mtime))
        who = f"process {process} on {host}, since {since}"
        if host != socket.gethostname():
            return Note(State.running, f"{who}, as far as can be seen from here")
        if _lives(int(process)):
            return Note(State.running, who)
        return Note(State.failed, f"{who}, has gone without a word, as after SIGKILL")
    return None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
