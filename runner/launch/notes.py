"""Notes: files in the folder of a cell, by which any process on any machine can tell how it stands.

This module alone writes and reads them.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner.errors import text_of
from runner.say import say
from runner.signals import Ended

# What the cell is called, the name of its results, the process that began it, its seconds once it is
# done, and the reason if it failed. An empty note beside the reason says that it diverged, or that a
# signal stopped it.
NOTES = LABEL, NAME, BEGUN, DONE, FAILURE, DIVERGED, STOPPED = (
    "label.txt",
    "name.txt",
    "begun.txt",
    "done.txt",
    "failure.txt",
    "diverged.txt",
    "stopped.txt",
)

# Told of cells that diverged: to say their command again makes nothing.
STAYS = "what diverged stays so until code, options or device change"

# The output of a cell that runs in a process of its own, or a link to it.
LOG = "log.txt"

# In the folder of a sweep: the folders of the trainings that several cells wait for.
SHARED = "shared"


@dataclass(frozen=True)
class Outcome:
    """The end of a cell: its seconds, or the reason of its failure, and whether that is divergence or a
    signal."""

    seconds: float
    failure: str | None = None
    diverged: bool = False
    stopped: bool = False


@dataclass(frozen=True)
class Begin:
    """The begin of a cell: the process, its machine, and the time in seconds since the epoch.

    `started` tells the process from another one that bears its number (see `start_of`).
    """

    host: str
    process: int
    started: str | None
    time: float


# The failure of a cell that has ended and whose folder does not say how.
WITHOUT_A_NOTE = "it ended without a note in its folder, as on a full disk"


@contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Note the begin and the end of the body. An exception is printed and noted, and goes no further; a
    signal that ends the process is noted, and ends it."""
    start = time.monotonic()
    try:
        for earlier in (DONE, FAILURE, DIVERGED, STOPPED):
            (folder / earlier).unlink(missing_ok=True)
        process = os.getpid()
        note(folder, BEGUN, f"{socket.gethostname()} {process} {start_of(process) or ''}".rstrip())
        yield
        note(folder, DONE, f"{time.monotonic() - start:.3f}")
    except Ended as ended:
        fail(folder, str(ended), STOPPED)
        raise
    except Exception as error:
        text = text_of(error)
        say(f"failed: {text}")
        fail(folder, text, *([DIVERGED] if _is_divergence(error) else []))


def _is_divergence(error: Exception) -> bool:
    from methods.training.divergence import Diverged  # imports torch

    return isinstance(error, Diverged)


def forget_sweep(folder: Path) -> None:
    """Remove the notes of an earlier sweep in this folder: of its cells and of its shared trainings."""
    for name in NOTES:
        for earlier in (*folder.glob(f"*/{name}"), *folder.glob(f"{SHARED}/*/{name}")):
            earlier.unlink()


def fail(folder: Path, reason: str, *marks: str) -> None:
    """Note the reason of a failure, and the log where there is one, after empty notes of its kind.

    A disk that is full takes no note, and the sweep goes on: its end tells of a cell without one.
    """
    log = folder / LOG
    with suppress(OSError):
        for mark in marks:
            note(folder, mark, "")
        note(folder, FAILURE, f"{reason.rstrip()} (log: {log})" if log.exists() else reason)


def link_log(folder: Path, log: Path) -> None:
    """Let the log of a cell be another file, in place of the log of an earlier sweep in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG).unlink(missing_ok=True)
    (folder / LOG).symlink_to(log)


def note(folder: Path, name: str, text: str) -> None:
    """Write a note, which appears whole or not at all, and the folder if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{name}-{os.getpid()}"
    scratch.write_text(text)
    scratch.replace(folder / name)


def cells_in(sweep: Path) -> list[Path]:
    """Return the folders of a sweep's cells, by their numbers."""
    found = {path.parent for name in (BEGUN, LABEL) for path in sweep.glob(f"*/{name}")}
    return sorted(found, key=lambda cell: (len(cell.name), cell.name))


def label_of(folder: Path) -> str:
    """Return what the cell is called."""
    return _read(folder, LABEL) or f"cell {folder.name}"


def name_of(folder: Path) -> str | None:
    """Return the name of the cell's results; None if that is not known yet."""
    return _read(folder, NAME)


def begin_of(folder: Path) -> Begin | None:
    """Return the begin of a cell; None if no process has begun it."""
    if (text := _read(folder, BEGUN)) is None:
        return None
    host, process, *started = text.split()  # earlier versions noted no start, nor does a system without
    return Begin(host, int(process), next(iter(started), None), (folder / BEGUN).stat().st_mtime)


def start_of(process: int) -> str | None:
    """Return when a process of this machine started, in ticks of its clock; None if /proc does not
    tell."""
    with suppress(OSError):
        # the fields after the name, which may hold spaces and ")"; the start is the 22nd of all
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return None


def has_begun(folder: Path) -> bool:
    """Return whether a process has begun the cell."""
    return BEGUN in _names(folder)


def has_log(folder: Path) -> bool:
    """Return whether the output of the cell goes to a file, not to the user."""
    return LOG in _names(folder)


def outcome(folder: Path) -> Outcome | None:
    """Return how a cell ended; None if it has not, as far as its notes say."""
    names = _names(folder)
    if FAILURE in names:
        return Outcome(0, (folder / FAILURE).read_text(), DIVERGED in names, STOPPED in names)
    return Outcome(float((folder / DONE).read_text())) if DONE in names else None


def _read(folder: Path, name: str) -> str | None:
    path = folder / name
    return path.read_text() if path.exists() else None


def _names(folder: Path) -> set[str]:
    """Return the files of a folder. A network file system remembers for a while that a single file was
    absent, and looks again when a folder is listed."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
