"""Full disks and files with their own checksums, as writers of files and the store know them."""

import errno
import os

# The errors of a full disk, an exceeded quota and a file that is too large.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def says_full(error: BaseException) -> bool:
    """Return True if the error means a full disk, an exceeded quota or a file that is too large."""
    if isinstance(error, OSError):
        return error.errno in FULL
    from_safetensors = type(error).__name__ == "SafetensorError"  # it has the system's text, no number
    return from_safetensors and any(os.strerror(number) in str(error) for number in FULL)


# The suffix of files of entries, which carry their own checksums. The store does not check them: their
# reader does, since a request reads few entries of many.
ENTRIES = ".entries"
