"""The memory of a step's numbers, from where they are packed until they are on the disk.

A GPU packs into memory of its own, and one copy brings a step to the CPU: copies of each layer by
itself would stop the GPU at every layer.
"""

import queue
from collections.abc import Callable
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
    (n, slot_numbers) are float32."""

    entries: Tensor
    sums: Tensor


@dataclass(frozen=True)
class Buffer:
    """Memory of the CPU for the numbers of a step: bytes that begin on a page, and float32 (rows,
    slot_numbers)."""

    entries: Tensor
    sums: Tensor


@dataclass(frozen=True)
class Lease:
    """A buffer while it belongs to a step: `packed` is filled on the training's device, and `landed`
    is the same numbers in memory of the CPU, or the same memory if the training runs there."""

    packed: Packed
    landed: Packed
    buffer: Buffer

    def land(self) -> Callable[[], Packed]:
        """Begin to move the packed numbers to the CPU; return a function that waits for them."""
        if self.packed is self.landed:
            return lambda: self.landed
        self.landed.entries.copy_(self.packed.entries, non_blocking=True)
        self.landed.sums.copy_(self.packed.sums, non_blocking=True)
        moved = torch.cuda.Event()
        moved.record(torch.cuda.current_stream(self.packed.sums.device))

        def wait() -> Packed:
            moved.synchronize()
            return self.landed

        return wait


class Ring:
    """Buffers for steps of at most `rows` tracked rows, which are used again and again: fresh memory
    costs a page fault for each of its pages.

    A ring has one buffer if more of them would take over half of the free memory. The training then
    waits for the disk at every step. The memory of a GPU is one for all steps: its copies to the CPU
    end before the next step's numbers are packed, in the order of its stream.
    """

    def __init__(self, layout: Layout, dtype: FactorType, rows: int, device: torch.device) -> None:
        self._type, self._numbers = TYPES[dtype], layout.entry_numbers
        self._free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        size, far = buffer_bytes(layout, dtype, rows), device.type == "cuda"
        for _ in range(buffers_that_fit(size)):
            memory = torch.empty(2 * PAGE + rows * self._width, dtype=torch.uint8, pin_memory=far)
            paged = memory[-memory.data_ptr() % PAGE :]
            self._free.put(Buffer(paged, torch.empty(rows, layout.slot_numbers, pin_memory=far)))
        self._far: Packed | None = None
        if far:
            entries = torch.empty(rows, self._numbers, dtype=self._type, device=device)
            self._far = Packed(entries, torch.empty(rows, layout.slot_numbers, device=device))

    @property
    def _width(self) -> int:
        """Bytes of an entry."""
        return self._numbers * self._type.itemsize

    def take(self, first: int, count: int) -> Lease:
        """Return memory for the entries `first` to `first + count` of a file and as many sums; wait
        until a buffer is free."""
        buffer = self._free.get()
        # as far into a page as their place in the file: whole pages can be written from where they are
        start = first * self._width % PAGE
        entries = buffer.entries[start : start + count * self._width].view(self._type)
        landed = Packed(entries.view(count, self._numbers), buffer.sums[:count])
        far = self._far
        packed = landed if far is None else Packed(far.entries[:count], far.sums[:count])
        return Lease(packed, landed, buffer)

    def give_back(self, lease: Lease) -> None:
        """Make the buffer of a step's numbers free."""
        self._free.put(lease.buffer)


def buffer_bytes(layout: Layout, dtype: FactorType, rows: int) -> int:
    """Return the bytes of a buffer for steps of `rows` tracked rows."""
    return rows * (layout.entry_numbers * TYPES[dtype].itemsize + layout.slot_numbers * 4)


def buffers_that_fit(size: int) -> int:
    """Return the count of buffers of `size` bytes that take at most half of the free memory, or 1."""
    return max(1, min(BUFFERS, int(available_memory(torch.device("cpu")) / 2 / max(1, size))))
