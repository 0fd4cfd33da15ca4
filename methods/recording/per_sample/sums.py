"""The file of sums: one block of float32 numbers per slot, added to in place."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
from torch import Tensor

from data.disk import synced
from methods.recording.per_sample.layout import SUMS
from methods.training.checkpoint import State


class SumFile:
    """Gradients summed in float32 over the steps of every slot, `width` numbers each.

    A slot is a tracked row or a group. Its block holds the numbers of the layers in turn.
    """

    def __init__(self, folder: Path, slots: int, width: int) -> None:
        self._path, self._size = folder / SUMS, 4 * slots * width
        self._sum = np.empty(width, np.float32)
        self._empty = np.ones(slots, bool)  # slots that nothing was added to, which need no reading
        self._copies = [f"{SUMS}.a", f"{SUMS}.b"]  # the first is that of the last state

    def open(self) -> None:
        """Open the file, filled with zeros if it is new. Raise OSError if the disk has no room."""
        self._file = io.FileIO(self._path, "r+", opener=_creating)
        self._file.truncate(self._size)
        if hasattr(os, "posix_fallocate") and self._size:
            # Reserve the blocks now, so that a full disk is found when the training begins.
            os.posix_fallocate(self._file.fileno(), 0, self._size)

    def state_dict(self) -> State:
        """Copy the sums, which later steps change, to one of two files in turn; return its name."""
        self._copies.reverse()
        copy = self._path.with_name(self._copies[0])
        shutil.copyfile(self._path, copy)
        synced(copy)
        return {"copy": copy.name}

    def load_state_dict(self, state: State) -> None:
        """Go on from a copy. Call it before `open`."""
        shutil.copyfile(self._path.with_name(state["copy"]), self._path)
        self._empty[:] = False
        self._copies.sort(key=lambda name: name != state["copy"])

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
        """Close the file, and remove its copies."""
        self._file.close()
        for copy in self._copies:
            self._path.with_name(copy).unlink(missing_ok=True)


def _creating(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)
