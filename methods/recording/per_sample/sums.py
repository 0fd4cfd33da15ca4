"""The file of sums: one block of float32 numbers per slot, added to in place."""

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from methods.recording.per_sample.layout import SUMS


class SumFile:
    """Gradients summed in float32 over the steps of every slot, `width` numbers each.

    A slot is a tracked row or a group. Its block holds the numbers of the layers in turn.
    """

    def __init__(self, folder: Path, slots: int, width: int) -> None:
        self._path, self._size = folder / SUMS, 4 * slots * width
        self._sum = np.empty(width, np.float32)
        self._empty = np.ones(slots, bool)

    def open(self) -> None:
        """Create the file, filled with zeros. Raise OSError if the disk has no room for all of it."""
        self._file = self._path.open("w+b", buffering=0)
        self._file.truncate(self._size)
        if hasattr(os, "posix_fallocate") and self._size:
            # Reserve the blocks now, so that a full disk is found when the training begins.
            os.posix_fallocate(self._file.fileno(), 0, self._size)

    def add(self, slots: Tensor, values: Tensor) -> None:
        """Add values (n, width) to the sums of their slots (n,)."""
        for slot, value in zip(slots.tolist(), values.numpy(), strict=True):
            # Read and write: a mapping of the file would take a page fault for every page of a row.
            place = slot * value.nbytes
            if self._empty[slot]:
                np.add(value, 0, out=self._sum)  # a sum begins at 0, so −0 becomes 0
                self._empty[slot] = False
            else:
                os.preadv(self._file.fileno(), [self._sum.data], place)
                self._sum += value
            os.pwrite(self._file.fileno(), self._sum.data, place)

    def close(self) -> None:
        self._file.close()
