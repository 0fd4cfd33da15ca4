"""States: how cells stand, as the notes of their sweeps tell it."""

import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from runner.launch.notes import (
    LOG,
    SHARED,
    Begin,
    begin_of,
    cells_in,
    has_log,
    label_of,
    outcome,
    start_of,
)
from runner.state.manifest import Manifest


class State(Enum):
    """How a cell stands.

    A hit would be made of what is stored alone. A diverged cell would diverge again with the same code.
    """

    hit = "hit"
    running = "running"
    missing = "missing"
    failed = "failed"
    diverged = "diverged"

    @property
    def is_left(self) -> bool:
        """Whether the cell's command, said again, makes something."""
        return self not in (State.hit, State.diverged)


@dataclass(frozen=True)
class Note:
    """What the notes of sweeps say last of a cell: that it runs, or why it has not ended well."""

    state: State
    why: str


# Cells by the name and the key of their results.
Notes = Mapping[tuple[str, str], Note]


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


def shared_at_work(sweep: Manifest) -> dict[str, str]:
    """Return what the notes say of each training at work that several cells wait for, by its label."""
    notes = {label_of(folder): _note(folder) for folder in cells_in(sweep.folder / SHARED)}
    return {label: note.why for label, note in notes.items() if note and note.state is State.running}


def _note(folder: Path) -> Note | None:
    """Return what the folder of a cell says, or None if it has not begun or has ended well."""
    with suppress(FileNotFoundError):
        ended = outcome(folder)
        if ended is not None:
            if ended.failure is None:
                return None
            state = State.missing if ended.stopped else State.failed
            return Note(state, ended.failure.strip())
        begin = begin_of(folder)
        if begin is None:
            return None
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(begin.time))
        who = f"process {begin.process} on {begin.host}, since {since}"
        log = f" (log: {folder / LOG})" if has_log(folder) else ""
        if begin.host != socket.gethostname():
            return Note(State.running, f"{who}, as far as can be seen from here{log}")
        if _lives(begin):
            return Note(State.running, f"{who}{log}")
        return Note(State.failed, f"{who}, has gone without a word, as after SIGKILL")
    return None


def _lives(begin: Begin) -> bool:
    """Return whether the process that began a cell here is alive, and not another one of its number, as
    the first process of a container is that starts again."""
    start = start_of(begin.process)
    if begin.started is not None and start is not None and begin.started != start:
        return False
    try:
        os.kill(begin.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
