"""Files of entries of one size. A second thread appends them, and reading checks their checksums."""

import errno
import io
import mmap
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from data.disk import ENTRIES, says_full
from data.errors import UserError
from methods.training.checkpoint import State

# A recorder that gave up on a full disk leaves this file in its folder.
LOST = "lost"

# The endings of a file that a state of the training has a copy in, by turns.
COPIES = (".a", ".b")

# Jobs that may wait for the disk before training does.
PENDING = 4

# Bytes that are written at once, and the page size that bypassing the page cache requires.
BLOCK, PAGE = 2**22, 4096


Job = Callable[[], None]


class Damaged(UserError):
    """A file of a record was altered, or belongs to another record."""


class Writer:
    """A thread that runs jobs in the order of their arrival, as a context manager.

    Jobs write and add with numpy: torch's operations in a second thread would compete with training for
    its threads.

    An error of a job is raised by the next `do`, or at the end. With `go_on`, a full disk ends only the
    record: `lost` becomes true, nothing more is written, and the files in `folder` are deleted at once
    to make room for the trained model. The file `lost` takes their place: a state of the training that
    was written before needs the files, and does not know that they are gone.
    """

    def __init__(self, folder: Path, go_on: bool) -> None:
        self.folder = folder
        self.go_on = go_on
        self.lost = False
        self._error: BaseException | None = None
        self._jobs: queue.Queue[tuple[Job, Job] | None] = queue.Queue(PENDING)
        self._thread = threading.Thread(target=self._work, name="record", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._jobs.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def do(self, job: Job, after: Job = lambda: None) -> None:
        """Queue a job, waiting if the queue is full. Raise the error of an earlier job.

        `after` follows the job in any case, also if it fails or is left out.
        """
        self._raise()
        self._jobs.put((job, after))

    def flush(self) -> None:
        """Wait until all jobs are done. Raise the error of one."""
        self._jobs.join()
        self._raise()

    def state_dict(self) -> State:
        """Wait until all jobs are done, and return whether the record was lost."""
        self.flush()
        return {"lost": self.lost}

    def load_state_dict(self, state: State) -> None:
        self.lost = state["lost"] or (self.folder / LOST).exists()

    def _work(self) -> None:
        while (jobs := self._jobs.get()) is not None:
            job, after = jobs
            if self._error is None and not self.lost:
                self._try(job)
            after()
            self._jobs.task_done()

    def _try(self, job: Job) -> None:
        try:
            job()
        except BaseException as error:
            if self.go_on and says_full(error):
                self.lost = True
                empty(self.folder)
                with suppress(OSError):
                    (self.folder / LOST).touch()
            else:
                self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def empty(folder: Path) -> None:
    """Delete the files of an unfinished record, and free their space although some may be open.

    An error ends it: the thread of a record must not die, because training waits for its queue.
    """
    with suppress(OSError):
        for file in filter(Path.is_file, folder.iterdir()):
            os.truncate(file, 0)  # a file that is still open would keep its blocks
            file.unlink()


class EntryFile:
    """The file `name`.entries of a folder while it is written; `close` writes the entries' checksums.

    If the file system allows it, blocks bypass the page cache: a record is often larger than memory, and
    copying it through the cache takes more processor time than writing it. Entries that begin as far
    into a page of memory as their place is into a page of the file are written from where they are.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / (name + ENTRIES)
        self._file = io.FileIO(self.path, "r+", opener=_past_the_cache)
        self._block = mmap.mmap(-1, BLOCK)  # begins on a page, as bypassing the cache requires
        self._filled = 0
        self._size = 0
        self._sums: list[int] = []

    def append(self, entries: Tensor) -> None:
        """Append (n, …) numbers on the CPU as n entries."""
        block = entries.contiguous().view(torch.uint8).flatten(1).numpy()
        self._sums.extend(map(xxh3_64_intdigest, block))
        left = block.data.cast("B")
        self._size += len(left)
        if block.ctypes.data % PAGE == self._filled % PAGE:
            left = self._write_pages(left)
        while len(left):
            left = self._fill(left, BLOCK)
            if self._filled == BLOCK:
                self._write()

    def _fill(self, left: memoryview, end: int) -> memoryview:
        """Copy bytes into the block, up to `end` of it; return those that are left."""
        taken = left[: end - self._filled]
        self._block[self._filled : self._filled + len(taken)] = taken
        self._filled += len(taken)
        return left[len(taken) :]

    def _write_pages(self, left: memoryview) -> memoryview:
        """Write the block, its last page completed, and then the whole pages of these bytes; return
        those of the last page."""
        left = self._fill(left, -(-self._filled // PAGE) * PAGE)
        whole = len(left) // PAGE * PAGE
        if whole:
            self._write_all([memoryview(self._block)[: self._filled], left[:whole]])
            self._filled = 0
        return left[whole:]

    def state_dict(self) -> State:
        """Return the position in the file, what is not written yet, and the checksums so far."""
        os.fsync(self._file.fileno())
        tail = np.frombuffer(self._block, np.uint8, self._filled).copy()
        sums = np.array(self._sums, dtype=np.uint64).view(np.int64)
        return {"size": self._size, "tail": torch.from_numpy(tail), "sums": torch.from_numpy(sums)}

    def load_state_dict(self, state: State) -> None:
        """Go on at a position; what was written behind it is cut off."""
        self._size, tail = state["size"], state["tail"].numpy()
        self._sums = state["sums"].numpy().view(np.uint64).tolist()
        self._filled = len(tail)
        self._block[: self._filled] = tail.tobytes()
        self._file.truncate(self._size - self._filled)
        self._file.seek(self._size - self._filled)

    def _write(self) -> None:
        """Write the block in whole pages; `close` removes the padding of the last page."""
        self._write_all([memoryview(self._block)[: -(-self._filled // PAGE) * PAGE]])
        self._filled = 0

    def _write_all(self, parts: list[memoryview]) -> None:
        """Write parts of whole pages that begin on pages, one after another."""
        for left in parts:
            while len(left):
                left = left[self._file.write(left) :]

    def close(self) -> None:
        """Write the rest of the entries, and the checksums beside the file."""
        self._write()
        self._file.truncate(self._size)
        self._file.close()
        np.save(_sums_of(self.path), np.array(self._sums, dtype=np.uint64))


def _past_the_cache(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CREAT | getattr(os, "O_DIRECT", 0), 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags | os.O_CREAT, 0o666)  # this file system cannot bypass the cache


@dataclass(frozen=True)
class Entries:
    """A file of entries of `width` bytes, read by number."""

    path: Path
    width: int
    sums: "np.ndarray[Any, np.dtype[np.uint64]]"

    @staticmethod
    def open(folder: Path, name: str, width: int) -> "Entries":
        """Open a closed file. Raise Damaged if its entries do not have this width."""
        path = folder / (name + ENTRIES)
        sums = np.load(_sums_of(path))
        if path.stat().st_size != len(sums) * width:
            raise Damaged(f"{path} does not hold the {len(sums)} entries that it should")
        return Entries(path, width, sums)

    def read(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the entries of these numbers (n,), each width / itemsize numbers, as (n, …).

        Raise Damaged if the checksum of one differs.
        """
        which = numbers.numpy()
        found = torch.empty(len(which), self.width, dtype=torch.uint8)
        block = found.numpy()
        with self.path.open("rb", buffering=0) as file:
            for entry, number in zip(block, which.tolist(), strict=True):
                os.preadv(file.fileno(), [entry.data], number * self.width)
        sums = np.fromiter((xxh3_64_intdigest(entry.data) for entry in block), np.uint64, len(block))
        if not np.array_equal(sums, self.sums[which]):
            raise Damaged(f"{self.path} differs from what was written")
        return found.view(dtype)


def intact(path: Path) -> bool:
    """Return true if every entry of a closed file has the checksum that was stored for it."""
    sums = np.load(_sums_of(path))
    width = path.stat().st_size // max(1, len(sums))
    with path.open("rb") as file:
        return all(xxh3_64_intdigest(file.read(width)) == wanted for wanted in sums)


def _sums_of(path: Path) -> Path:
    return path.with_suffix(".sums.npy")
