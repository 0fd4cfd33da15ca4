"""Batch updates: how far each step moved the weights, and which rows were in it.

Idea: what a batch has added can be subtracted again.
Record: for every step whose batch holds a tracked row, Δ_t = θ_{t+1} − θ_t over all parameters, after
the optimizer, and the rows of the batch. `updates.bin` holds (U, M) numbers, in the order of the steps.
Size: U·M numbers; a request for 10 % of the rows hits nearly every batch (see `share_of_batches_hit`).
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from methods.recording import Recorder, Watched, share_of_batches_hit
from methods.training import Step


class Stored(Enum):
    """The numbers' type on disk."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


_TYPES = {Stored.fp32: torch.float32, Stored.fp16: torch.float16, Stored.bf16: torch.bfloat16}


@dataclass(frozen=True)
class BatchUpdates(Recorder):
    dtype: Stored

    def bill(self, watched: Watched) -> int:
        rows, batch = len(watched.split), watched.recipe.batch_size
        hit = share_of_batches_hit(rows, len(self.tracked(watched.split)), batch)
        updates = watched.recipe.epochs * math.ceil(rows / batch) * hit
        return round(updates * watched.parameters * _TYPES[self.dtype].itemsize)

    def watch(self, steps: Iterator[Step], watched: Watched) -> Iterator[Step]:
        tracked = self.tracked(watched.split)
        members: list[Tensor] = []
        before: Tensor | None = None

        with (watched.folder / "updates.bin").open("wb") as file:

            def close_step() -> None:
                """Writes the step that has just been taken, if it was to be kept."""
                if before is not None:
                    moved = parameters_to_vector(watched.model.parameters()).detach() - before
                    kept = moved.to(_TYPES[self.dtype]).cpu().contiguous()
                    file.write(kept.view(torch.uint8).numpy().data)

            for step in steps:
                close_step()
                before = None
                if torch.isin(step.batch.rows, tracked).any():
                    before = parameters_to_vector(watched.model.parameters()).detach().clone()
                    members.append(step.batch.rows.cpu())
                yield step
            close_step()
        width = max(map(len, members), default=1)
        rows = torch.full((len(members), width), -1)
        for line, batch in zip(rows, members, strict=True):
            line[: len(batch)] = batch
        save_file({"rows": rows, "tracked": tracked.cpu()}, watched.folder / "rows.safetensors")
        about = {"parameters": watched.parameters, "dtype": self.dtype.name}
        (watched.folder / "about.json").write_text(json.dumps(about))


@dataclass(frozen=True)
class UpdateRecord:
    """A record of batch updates, read one update at a time."""

    folder: Path
    rows: Tensor  # (U, B) rows of each update's batch, −1 where the batch was smaller
    parameters: int
    dtype: torch.dtype

    @staticmethod
    def open(folder: Path) -> "UpdateRecord":
        about = json.loads((folder / "about.json").read_text())
        rows = load_file(folder / "rows.safetensors")["rows"]
        return UpdateRecord(folder, rows, about["parameters"], _TYPES[Stored[about["dtype"]]])

    def hit(self, rows: Tensor) -> Tensor:
        """(U,) which updates' batches hold any of these rows."""
        return torch.isin(self.rows, rows.cpu()).any(1)

    def total(self, hit: Tensor) -> Tensor:
        """(M,) float32 sum of the updates that are hit, whatever their number in constant memory."""
        shape = (len(self.rows), self.parameters * self.dtype.itemsize)
        total = torch.zeros(self.parameters, dtype=torch.float64)
        if not hit.any():
            return total.float()
        stored = np.memmap(self.folder / "updates.bin", np.uint8, "r", shape=shape)
        for number in hit.nonzero()[:, 0].tolist():
            total += torch.from_numpy(stored[number].copy()).view(self.dtype)
        return total.float()
