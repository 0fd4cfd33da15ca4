"""What is known of files by those who write them and those who keep them."""

import errno
import os

# What the system says when a disk, a quota or a file is full.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def says_full(error: BaseException) -> bool:
    """Whether a disk, a quota or a file was full. safetensors tells what the system said as text."""
    if isinstance(error, OSError):
        return error.errno in FULL
    named = type(error).__name__ == "SafetensorError"
    return named and any(os.strerror(number) in str(error) for number in FULL)


# Files of entries that carry their own checksums: the store leaves checking them to whoever reads them,
# since a request reads few of many.
ENTRIES = ".entries"
