"""Memory: what is free, and the C library's allocator, which holds the tensors on the CPU.

glibc returns freed memory to the system as soon as enough of it is free at the end of its heap. A
training then requests the pages of its activations anew at every step, at one page fault each. Keeping
freed memory avoids this. Other C libraries are left as they are.
"""

import ctypes
import math
from contextlib import suppress
from pathlib import Path

import torch

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


def available_memory(device: torch.device) -> float:
    """Return the bytes of memory that are free on the device; infinity if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError, StopIteration):  # only Linux has this file
        lines = Path("/proc/meminfo").read_text().splitlines()
        # in KiB, with what the page cache can give back
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return math.inf
