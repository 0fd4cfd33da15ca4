"""The memory of the C library's allocator, which holds the tensors on the CPU.

glibc returns freed memory to the system as soon as enough of it is free at the end of its heap. A
training then requests the pages of its activations anew at every step, at one page fault each. Keeping
freed memory avoids this. Other C libraries are left as they are.
"""

import ctypes
from contextlib import suppress

# Parameters of mallopt (glibc's malloc.h), and the largest value that glibc accepts for each.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT, LARGEST_BLOCK = 2**31 - 1, 2**25


def keep_freed_memory() -> None:
    """Keep freed memory in the process: up to 2 GiB of it, in blocks of up to 32 MiB."""
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)


def release_freed_memory() -> None:
    """Return all freed memory to the system, so that the resident set is the memory in use."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
