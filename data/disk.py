"""Files and full disks, as all writers of files know them."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from torch import Tensor

# The errors of a full disk, an exceeded quota and a file that is too large.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# The most bytes of a file's name, on all usual file systems.
LONGEST_NAME = 255


def says_full(error: BaseException) -> bool:
    """Return True if the error means a full disk, an exceeded quota or a file that is too large."""
    if isinstance(error, shutil.Error) or type(error).__name__ == "SafetensorError":
        # they have the system's text and no number
        return any(os.strerror(number) in str(error) for number in FULL)
    if not isinstance(error, OSError):
        return False
    # numpy counts what it wrote, and gives no reason
    return error.errno in FULL or (error.errno is None and "requested and" in str(error))


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder."""
    return shutil.disk_usage(folder).free


def save_tensors(tensors: "Mapping[str, Tensor]", path: Path) -> None:
    """Write tensors as safetensors. The file has the permissions that the umask and its folder give.

    safetensors itself writes a file that only its owner may read.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path)  # renames its own file over this one
    path.chmod(mode)


def synced(path: Path) -> None:
    """Return once a file, or the names in a folder, are on the disk and would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path whose file takes the place of `path` if the body succeeds.

    So a file is never seen half written, and one of another user is replaced wherever the folder may be
    written.
    """
    scratch = path.with_name(f".{path.name}-{uuid4().hex[:8]}.tmp")
    try:
        yield scratch
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


# The suffix of files of entries, which carry their own checksums. The store does not check them: their
# reader does, since a request reads few entries of many.
ENTRIES = ".entries"
