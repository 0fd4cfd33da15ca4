"""The memory of a step's numbers, from where they are packed until they are on the disk."""

import queue
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.recording.files import PAGE
from methods.recording.per_sample.layout import TYPES, FactorType, Layout
from methods.training.memory import available_memory

# Buffers of a ring: the training fills one while another is written.
BUFFERS = 2


@dataclass(frozen=True)
class Packed:
    """The n tracked rows of a step: `entries` (n, entry_numbers) have the record's type, and `sums`
    (n, slot_numbers) are float32. Both are parts of a buffer."""

    entries: Tensor
    sums: Tensor
    buffer: "Buffer"


@dataclass(frozen=True)
class Buffer:
    """Memory for the numbers of a step: bytes that begin on a page, and float32 (rows, slot_numbers)."""

    entries: Tensor
    sums: Tensor


class Ring:
    """Buffers for steps of at most `rows` tracked rows, which are used again and again: fresh memory
    costs a page fault for each of its pages.

    A ring has one buffer if more of them would take over half of the free memory. The training then
    waits for the disk at every step.
    """

    def __init__(self, layout: Layout, dtype: FactorType, rows: int) -> None:
        self._type, self._numbers = TYPES[dtype], layout.entry_numbers
        self._free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        size = buffer_bytes(layout, dtype, rows)
        for _ in range(buffers_that_fit(size)):
            memory = torch.empty(2 * PAGE + rows * self._width, dtype=torch.uint8)
            paged = memory[-memory.data_ptr() % PAGE :]
            self._free.put(Buffer(paged, torch.empty(rows, layout.slot_numbers)))

    @property
    def _width(self) -> int:
        """Bytes of an entry."""
        return self._numbers * self._type.itemsize

    def take(self, first: int, count: int) -> Packed:
        """Return memory for the entries `first` to `first + count` of a file and as many sums; wait
        until a buffer is free."""
        buffer = self._free.get()
        # as far into a page as their place in the file: whole pages can be written from where they are
        start = first * self._width % PAGE
        entries = buffer.entries[start : start + count * self._width].view(self._type)
        return Packed(entries.view(count, self._numbers), buffer.sums[:count], buffer)

    def give_back(self, packed: Packed) -> None:
        """Make the buffer of these numbers free."""
        self._free.put(packed.buffer)


def buffer_bytes(layout: Layout, dtype: FactorType, rows: int) -> int:
    """Return the bytes of a buffer for steps of `rows` tracked rows."""
    return rows * (layout.entry_numbers * TYPES[dtype].itemsize + layout.slot_numbers * 4)


def buffers_that_fit(size: int) -> int:
    """Return the count of buffers of `size` bytes that take at most half of the free memory, or 1."""
    return max(1, min(BUFFERS, int(available_memory(torch.device("cpu")) / 2 / max(1, size))))
