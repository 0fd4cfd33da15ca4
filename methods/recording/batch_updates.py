"""Batch updates: the change of the weights at each step, and the rows of its batch.

Idea: an update that a batch has added can be subtracted again.
Record: for every step whose batch holds a tracked row, Δ_t = θ_{t+1} − θ_t over all parameters, after
the optimizer, and the rows of the batch. `updates.entries` holds the updates in the order of the steps.
Size: U·M numbers for U updates of M weights. A request for 10 % of the rows hits nearly every batch (see
`share_of_batches_hit`).
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from methods.recording.estimates import share_of_batches_hit
from methods.recording.files import Entries, EntryFile, Writer
from methods.recording.recorder import ABOUT, ROWS, RecordedTraining, Recorder, close_record
from methods.training.checkpoint import State
from methods.training.descent import Step

UPDATES = "updates"

# Updates that are in memory at once while a request is served.
CHUNK = 4


class Stored(Enum):
    """The type of the numbers on disk."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


TYPES = {Stored.fp32: torch.float32, Stored.fp16: torch.float16, Stored.bf16: torch.bfloat16}


class Packing(Protocol):
    """Converts an update (M,) into an entry of `width` bytes, and adds entries to a total."""

    width: int

    def pack(self, number: int, update: Tensor) -> Tensor:
        """Return the entry (width,) uint8 of the number-th update (M,)."""

    def add(self, total: Tensor, number: int, entry: Tensor) -> None:
        """Add the number-th entry to `total` (M,)."""

    def about(self) -> dict[str, Any]:
        """Return the arguments of the packing that reads the entries, as JSON-like values."""


class Whole:
    """Keeps every number of an update."""

    def __init__(self, parameters: int, dtype: str) -> None:
        self.parameters = parameters
        self.dtype = Stored[dtype]
        self.width = parameters * TYPES[self.dtype].itemsize

    def pack(self, number: int, update: Tensor) -> Tensor:
        return update.to(TYPES[self.dtype]).contiguous().view(torch.uint8)

    def add(self, total: Tensor, number: int, entry: Tensor) -> None:
        total += entry.view(TYPES[self.dtype])

    def about(self) -> dict[str, Any]:
        return {"parameters": self.parameters, "dtype": self.dtype.name}


@dataclass(frozen=True)
class UpdateRecorder(Recorder):
    """Records every update whose batch holds a tracked row; the packing decides which numbers of it."""

    goes_on: ClassVar[bool] = True
    version: ClassVar[int] = 2  # 1 did not count the steps

    def packing(self, training: RecordedTraining) -> Packing:
        """Return the packing of this training's updates."""
        raise NotImplementedError

    def estimated_bytes(self, training: RecordedTraining, tracked: Tensor | None = None) -> int:
        tracked = self.tracked(training.split) if tracked is None else tracked
        hit = share_of_batches_hit(len(training.split), len(tracked), training.recipe.batch_size)
        # U·width bytes for U = steps · P(a batch holds a tracked row)
        return round(training.steps * hit * self.packing(training).width)

    def watch(self, steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
        tracked, packing = self.tracked(training.split), self.packing(training)
        with self.writer(training.folder) as writer:
            updates = _Updates(training, packing, writer)
            training.keep(updates)
            for step in steps:
                updates.close_step()
                updates.open_step(step, bool(torch.isin(step.batch.rows, tracked).any()))
                yield step
            updates.close_step()
            writer.do(updates.file.close)
        index = self.index(training.split) | updates.index()
        close_record(writer, training.folder, json.dumps(packing.about()), index)


class _Updates:
    """The updates of a training so far. A step is opened before its update, and closed after it."""

    def __init__(self, training: RecordedTraining, packing: Packing, writer: Writer) -> None:
        self.training, self.packing, self.writer = training, packing, writer
        self.file = EntryFile(training.folder, UPDATES)
        self.members: list[Tensor] = []  # the rows of each recorded batch
        self.taken = 0
        self.before: Tensor | None = None  # θ_t, if the open step is recorded

    def open_step(self, step: Step, recorded: bool) -> None:
        """Note the weights before the update, if it is to be recorded."""
        self.taken += 1
        if recorded and not self.writer.lost:
            # θ_t, cloned because the optimizer changes the weights in place
            self.before = parameters_to_vector(self.training.model.parameters()).detach().clone()
            self.members.append(step.batch.rows.cpu())

    def close_step(self) -> None:
        """Write the update of the open step, if it is recorded: Δ_t = θ_{t+1} − θ_t."""
        if self.before is None:
            return
        update = parameters_to_vector(self.training.model.parameters()).detach() - self.before
        entry = self.packing.pack(len(self.members) - 1, update).cpu()
        self.writer.do(partial(self.file.append, entry[None]))
        self.before = None

    def index(self) -> dict[str, Tensor]:
        """Return the rows of the updates, and the number of steps, as tensors to be stored."""
        return {"rows": _padded(self.members), "steps": torch.tensor(self.taken)}

    def state_dict(self) -> State:
        self.close_step()
        return {**self.index(), "writer": self.writer.state_dict(), "file": self.file.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.members = [rows[rows >= 0] for rows in state["rows"]]
        self.taken = int(state["steps"])
        self.writer.load_state_dict(state["writer"])
        if not self.writer.lost:
            self.file.load_state_dict(state["file"])


def _padded(batches: list[Tensor]) -> Tensor:
    """Return the rows of batches (U, B), with −1 after the rows of a smaller batch."""
    width = max(map(len, batches), default=1)
    rows = torch.full((len(batches), width), -1)
    for line, batch in zip(rows, batches, strict=True):
        line[: len(batch)] = batch
    return rows


@dataclass(frozen=True)
class BatchUpdates(UpdateRecorder):
    """Keeps whole updates."""

    kind: ClassVar[str] = "methods.recorders.batch_updates.BatchUpdates"
    dtype: Stored

    def packing(self, training: RecordedTraining) -> Packing:
        return Whole(training.parameters, self.dtype.name)

    def cures(self, training: RecordedTraining, free: int, option: str) -> Iterator[str]:
        if self.dtype is Stored.fp32 and self.fits(training, free, dtype=Stored.bf16):
            yield f"{option}.dtype=bf16"
        yield from super().cures(training, free, option)


Unpacker = Callable[..., Packing]  # makes a packing from its `about`


@dataclass(frozen=True)
class UpdateRecord:
    """A record of U updates of M weights, read a few at a time."""

    entries: Entries
    rows: Tensor  # (U, B) rows of each update's batch, −1 after those of a smaller batch
    packing: Packing
    parameters: int
    steps: int  # of the whole training, also those without a tracked row

    @staticmethod
    def open(folder: Path, unpacker: Unpacker = Whole) -> "UpdateRecord":
        """Open the record in a folder. Raise Damaged if its files do not belong together."""
        about = json.loads((folder / ABOUT).read_text())
        index = load_file(folder / ROWS)
        packing = unpacker(**about)
        entries = Entries.open(folder, UPDATES, packing.width)
        steps = int(index["steps"])
        return UpdateRecord(entries, index["rows"], packing, about["parameters"], steps)

    def hit(self, rows: Tensor) -> Tensor:
        """Return the mask (U,) of the updates whose batch holds any of these rows."""
        return torch.isin(self.rows, rows.cpu()).any(1)

    def total(self, hit: Tensor) -> Tensor:
        """Return the sum (M,) float32 of the updates in the mask (U,), with 0 for numbers not kept.

        Memory does not grow with their number. Raise Damaged if an entry was altered.
        """
        # Σ_{t hit} Δ_t, (M,), in float64: thousands of small updates would lose digits in float32
        total = torch.zeros(self.parameters, dtype=torch.float64)
        for numbers in hit.nonzero()[:, 0].split(CHUNK):
            for number, entry in zip(
                numbers.tolist(), self.entries.read(numbers, torch.uint8), strict=True
            ):
                self.packing.add(total, number, entry)
        return total.float()
