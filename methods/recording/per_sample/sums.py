"""The file of sums: one block of float32 numbers per slot, added to in place."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
from torch import Tensor

from data.disk import synced
from methods.recording.files import COPIES
from methods.recording.per_sample.layout import SUMS
from methods.training.checkpoint import Checkpoint, State


class SumFile:
    """Gradients summed in float32 over the steps of every slot, `width` numbers each.

    A slot is a tracked row or a group. Its block holds the numbers of the layers in turn. The file has
    its name once it is closed: a training that was killed after that, and goes on from an earlier state,
    finds the sums of its end there, and adds nothing to them.
    """

    def __init__(self, folder: Path, slots: int, width: int, checkpoint: Checkpoint) -> None:
        self._path, self._size = folder / SUMS, 4 * slots * width
        self._part = folder / f"{SUMS}.part"
        self._closed = self._path.exists()
        self._sum = np.empty(width, np.float32)
        self._empty = np.ones(slots, bool)  # slots that nothing was added to, which need no reading
        # the first is that of the last state, if there is one
        self._copies = [f"{SUMS}{ending}" for ending in COPIES]
        self._checkpoint = checkpoint
        self._copied: int | None = None  # the states that were kept when the second was made

    def open(self) -> None:
        """Open the file, filled with zeros if it is new. Raise OSError if the disk has no room."""
        if self._closed:
            return
        self._file = io.FileIO(self._part, "r+", opener=_creating)
        self._file.truncate(self._size)
        if hasattr(os, "posix_fallocate") and self._size:
            # Reserve the blocks now, so that a full disk is found when the training begins.
            os.posix_fallocate(self._file.fileno(), 0, self._size)

    def state_dict(self) -> State:
        """Copy the sums, which later steps change, to a file that the last state does not need; return
        its name, or None if no step changes them. Raise OSError if the disk has no room for it beside
        what the records will still write."""
        if self._closed:
            return {"copy": None}
        kept = self._checkpoint.kept
        if self._copied is not None and self._copied < kept:
            self._copies.reverse()
        self._copied = None
        copy = self._path.with_name(self._copies[1])
        self._checkpoint.require_room(self._size - (copy.stat().st_size if copy.exists() else 0))
        try:
            shutil.copyfile(self._part, copy)
            synced(copy)
        except OSError:
            copy.unlink(missing_ok=True)  # a part of it would take room from the record
            raise
        self._copied = kept
        return {"copy": copy.name}

    def load_state_dict(self, state: State) -> None:
        """Go on from a copy. Call it before `open`."""
        if self._closed:
            return
        shutil.copyfile(self._path.with_name(state["copy"]), self._part)
        self._empty[:] = False
        self._copies.sort(key=lambda name: name != state["copy"])

    def add(self, slots: Tensor, values: Tensor) -> None:
        """Add values (n, width) to the sums of their slots (n,)."""
        if self._closed:
            return
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
        """Close the file, give it its name, and remove its copies."""
        if not self._closed:
            self._file.close()
            synced(self._part)
            self._part.rename(self._path)
            self._closed = True
        for copy in self._copies:
            self._path.with_name(copy).unlink(missing_ok=True)


def _creating(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)
