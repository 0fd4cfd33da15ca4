"""Batch updates: how far each step moved the weights, and which rows were in it.

Idea: what a batch has added can be subtracted again.
Record: for every step whose batch holds a tracked row, Δ_t = θ_{t+1} − θ_t over all parameters, after
the optimizer, and the rows of the batch; `updates.entries` holds them in the order of the steps.
Size: U·M numbers; a request for 10 % of the rows hits nearly every batch (see `share_of_batches_hit`).
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

from methods.recording.files import Entries, EntryFile
from methods.recording.recorder import (
    ABOUT,
    ROWS,
    RecordedTraining,
    Recorder,
    close_record,
    share_of_batches_hit,
)
from methods.training.descent import Step

UPDATES = "updates"

# Updates in memory at once while a request is served.
CHUNK = 4


class Stored(Enum):
    """The numbers' type on disk."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


TYPES = {Stored.fp32: torch.float32, Stored.fp16: torch.float16, Stored.bf16: torch.bfloat16}


class Packing(Protocol):
    """What of an update is kept: `width` bytes."""

    width: int

    def pack(self, number: int, update: Tensor) -> Tensor:
        """The entry (width,) uint8 of the number-th update (M,)."""

    def add(self, total: Tensor, number: int, entry: Tensor) -> None:
        """Adds the number-th entry to `total` (M,)."""

    def about(self) -> dict[str, Any]:
        """What it takes to unpack, as JSON-like values."""


class Whole:
    """Every number of an update."""

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
    """Keeps something of every update; what, is its packing."""

    version: ClassVar[int] = 2  # 1 did not count the steps

    def packing(self, watched: RecordedTraining) -> Packing:
        raise NotImplementedError

    def estimated_bytes(self, watched: RecordedTraining) -> int:
        rows, batch = len(watched.split), watched.recipe.batch_size
        hit = share_of_batches_hit(rows, len(self.tracked(watched.split)), batch)
        return round(watched.steps * hit * self.packing(watched).width)

    def watch(self, steps: Iterator[Step], watched: RecordedTraining) -> Iterator[Step]:
        tracked, packing = self.tracked(watched.split), self.packing(watched)
        members: list[Tensor] = []
        before: Tensor | None = None
        file = EntryFile(watched.folder, UPDATES)

        def close_step() -> None:
            """Keeps the step that has just been taken, where it is to be kept."""
            if before is not None:
                update = parameters_to_vector(watched.model.parameters()).detach() - before
                entry = packing.pack(len(members) - 1, update.cpu())
                writer.do(partial(file.append, entry[None]))

        with self.writer(watched.folder) as writer:
            taken = 0
            for step in steps:
                close_step()
                before, taken = None, taken + 1
                if torch.isin(step.batch.rows, tracked).any() and not writer.lost:
                    before = parameters_to_vector(watched.model.parameters()).detach().clone()
                    members.append(step.batch.rows.cpu())
                yield step
            close_step()
            writer.do(file.close)
        width = max(map(len, members), default=1)
        rows = torch.full((len(members), width), -1)
        for line, batch in zip(rows, members, strict=True):
            line[: len(batch)] = batch
        about = json.dumps(packing.about())
        index = {"rows": rows, "tracked": tracked.cpu(), "steps": torch.tensor(taken)}
        close_record(writer, watched.folder, about, index)


@dataclass(frozen=True)
class BatchUpdates(UpdateRecorder):
    kind: ClassVar[str] = "methods.recorders.batch_updates.BatchUpdates"
    dtype: Stored

    def packing(self, watched: RecordedTraining) -> Packing:
        return Whole(watched.parameters, self.dtype.name)


Unpacker = Callable[..., Packing]  # makes a packing of what its `about` said


@dataclass(frozen=True)
class UpdateRecord:
    """A record of updates, read a few at a time."""

    entries: Entries
    rows: Tensor  # (U, B) rows of each update's batch, −1 where the batch was smaller
    packing: Packing
    parameters: int
    steps: int  # of the whole training, kept or not

    @staticmethod
    def open(folder: Path, unpacker: Unpacker = Whole) -> "UpdateRecord":
        """Raises Damaged where the files do not belong together."""
        about = json.loads((folder / ABOUT).read_text())
        index = load_file(folder / ROWS)
        packing = unpacker(**about)
        entries = Entries.open(folder, UPDATES, packing.width)
        steps = int(index["steps"])
        return UpdateRecord(entries, index["rows"], packing, about["parameters"], steps)

    def hit(self, rows: Tensor) -> Tensor:
        """(U,) which updates' batches hold any of these rows."""
        return torch.isin(self.rows, rows.cpu()).any(1)

    def total(self, hit: Tensor) -> Tensor:
        """(M,) float32 sum of what is kept of the updates that are hit, in constant memory."""
        total = torch.zeros(self.parameters, dtype=torch.float64)
        for numbers in hit.nonzero()[:, 0].split(CHUNK):
            for number, entry in zip(
                numbers.tolist(), self.entries.read(numbers, torch.uint8), strict=True
            ):
                self.packing.add(total, number, entry)
        return total.float()
