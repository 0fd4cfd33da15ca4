"""The C library's heap, in which the tensors of a CPU lie.

glibc gives freed memory back to the system whenever enough of it is free at the heap's end, so that
every step of a training asks for its activations' pages anew, and gets them one page fault at a time.
Other libraries are left as they are.
"""

import ctypes
from contextlib import suppress

# From malloc.h, and the most that glibc takes for each.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT, LARGEST_BLOCK = 2**31 - 1, 2**25


def keep_freed_memory() -> None:
    """Keeps freed memory in the process: up to 2 GiB of it, in blocks of up to 32 MiB."""
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)


def release_freed_memory() -> None:
    """Gives all freed memory back to the system, so that the resident set is what is held."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
