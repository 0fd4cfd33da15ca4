"""Notes: files in the folder of a cell, by which any process on any machine can tell how it stands."""

import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.errors import message_of, wants_traceback
from runner.say import say

# What the cell is called, the name of its results, the process that began it, its seconds once it is
# done, and the reason if it failed.
LABEL, NAME, BEGUN, DONE, FAILURE = "label.txt", "name.txt", "begun.txt", "done.txt", "failure.txt"

# The output of a cell that runs in a process of its own, or a link to it.
LOG = "log.txt"


@dataclass(frozen=True)
class Outcome:
    """The end of a cell: its seconds, or the reason of its failure."""

    seconds: float
    failure: str | None = None


@contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Note the begin and the end of the body. An exception is printed and noted, and goes no further."""
    for earlier in (DONE, FAILURE):
        (folder / earlier).unlink(missing_ok=True)
    note(folder, BEGUN, f"{socket.gethostname()} {os.getpid()}")
    start = time.monotonic()
    try:
        yield
    except Exception as error:
        text = (None if wants_traceback() else message_of(error)) or traceback.format_exc()
        say(f"failed: {text}")
        fail(folder, text)
    else:
        note(folder, DONE, f"{time.monotonic() - start:.3f}")


def fail(folder: Path, reason: str) -> None:
    """Note the reason of a failure, and the log where there is one."""
    log = folder / LOG
    note(folder, FAILURE, f"{reason.rstrip()} (log: {log})" if log.exists() else reason)


def note(folder: Path, name: str, text: str) -> None:
    """Write a note, which appears whole or not at all."""
    scratch = folder / f".{name}-{os.getpid()}"
    scratch.write_text(text)
    scratch.replace(folder / name)


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
        return Outcome(0, (folder / FAILURE).read_text())
    return Outcome(float((folder / DONE).read_text())) if DONE in names else None


def _names(folder: Path) -> set[str]:
    """Return the files of a folder. A network file system remembers for a while that a single file was
    absent, and looks again when a folder is listed."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
