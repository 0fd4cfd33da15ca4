"""Marks of use: the artefacts that running processes read or make, which `prune` leaves alone.

Each process that uses the store has one file of marks, `.use/<machine>-<random>.mark`, a line per
artefact. It holds a kernel lock on the file while it runs, so that the marks of a killed process are
known to be stale. Locks may not reach other machines: their marks count for a week after the last one
was written.
"""

import fcntl
import os
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from runner.store.artefact import fingerprint
from runner.store.disks import age_in_days, ignoring_unwritable

HOST = socket.gethostname()


def _machine() -> str:
    """Return 8 hexadecimal digits that no other machine has, even if its host name begins like this
    one's. They outlast a reboot, which frees the locks of all processes before it."""
    number = ""
    with suppress(OSError):
        number = Path("/etc/machine-id").read_text()
    return fingerprint([HOST, number])[:8]


# Names in the store begin with it, where they tell whose they are.
MACHINE = _machine()

# The folder of marks in the store, and the days for which another machine's marks count.
FOLDER, DAYS = ".use", 7


class Marks:
    """The marks of one process. They end with it, or when nothing refers to this object any more."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._file: FileIO | None = None
        self._marked: set[Path] = set()

    def add(self, path: Path) -> None:
        """Mark an artefact as used. From here on `prune` does not delete it, if it exists.

        In a store that cannot be written, nothing is marked.
        """
        if path in self._marked:
            return
        with ignoring_unwritable():
            self._folder.mkdir(parents=True, exist_ok=True)
            with _guard(self._folder):
                self._opened().write(f"{path.parent.name}/{path.name}\n".encode())
        self._marked.add(path)

    def _opened(self) -> FileIO:
        if self._file is None:
            place = self._folder / f"{MACHINE}-{uuid4().hex[:8]}.mark"
            self._file = FileIO(place, "a")
            with suppress(OSError):  # without locks, the file counts until it is removed
                fcntl.flock(self._file, fcntl.LOCK_EX)
            weakref.finalize(self, _end, place, self._file, os.getpid())
        return self._file


def _end(place: Path, file: FileIO, owner: int) -> None:
    """Remove the file of marks, unless a forked process ends that does not own it."""
    file.close()
    if os.getpid() == owner:
        with suppress(OSError):
            place.unlink()


@contextmanager
def used(root: Path) -> Iterator[set[str]]:
    """Yield the artefacts in use, as stage/key. No process begins to use another one in the body.

    The files of killed processes are removed.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        yield set()
        return
    with _guard(folder):
        marks = [_marks_in(place) for place in folder.glob("*.mark")]
        yield {line for lines in marks for line in lines}


def _marks_in(place: Path) -> list[str]:
    """Return the marks in a file. If its process has ended, remove it and return none."""
    with suppress(FileNotFoundError), place.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return file.read().splitlines()
        if not place.name.startswith(f"{MACHINE}-") and age_in_days(place) < DAYS:
            return file.read().splitlines()
        place.unlink()
    return []


def _guard(folder: Path) -> FileLock:
    """Return the lock that separates marking from deleting: each is short, and neither sees the other
    half done."""
    return FileLock(folder / ".guard.lock")
