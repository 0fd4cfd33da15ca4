"""Messages for errors of the disk, and the age of folders."""

import errno
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.disk import FULL, says_full
from data.errors import UserError

REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


@contextmanager
def disk_errors_as_sentences(root: Path) -> Iterator[None]:
    """Turn an error of the body into UserError if the disk is full or cannot be written below `root`."""
    try:
        yield
    except Exception as error:
        if says_full(error):
            raise _full(root) from error
        if not (isinstance(error, OSError) and error.errno in REFUSED):
            raise
        if not str(error.filename or "").startswith(str(root)):
            raise
        raise UserError(f"cannot write {root} ({error.strerror}): set paths.root=…") from error


def _full(root: Path) -> UserError:
    return UserError(
        f"the disk of {root} is full: free some space "
        f"(python -m runner.store --root {shlex.quote(str(root.parent))} prune --unused helps) "
        "or choose another with paths.root=…; what was finished is safe, what was not is removed"
    )


@contextmanager
def ignoring_unwritable() -> Iterator[None]:
    """Ignore errors of the body that mean that a folder cannot be written, or that its disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED | FULL:
            raise


@contextmanager
def naming_the_owner(path: Path) -> Iterator[None]:
    """Raise UserError, naming the owner of an artefact, if the body may not read it."""
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"cannot read {error.filename}, which belongs to {_owner(path)}: they can share it with "
            f"chmod -R g+rX {path}; or set another paths.root=…"
        ) from error


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (OSError, KeyError):
        return "another user"


def days_untouched(folder: Path) -> float:
    """Return the days since a folder, or anything in it, was last written."""
    return min(map(age_in_days, (folder, *folder.rglob("*"))))


def age_in_days(path: Path) -> float:
    """Return the days since a folder was last used."""
    return (time.time() - path.stat().st_mtime) / 86400
