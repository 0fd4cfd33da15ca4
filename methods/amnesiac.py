"""Amnesiac: subtract every update of a batch that held a forgotten row.

Idea: subtract everything that the batches with forgotten rows have added to the weights.
Update rule: θ_u = θ_o − strength · Σ_{t: b_t ∩ D_f ≠ ∅} Δ_t.
Needs: a record of batch updates (`recorder=[batch_updates]`), and no data; if `strength` is auto, the
forgotten rows.
Differs from the reference code: that records only the batches of a class named before training, and its
strength is 1. Here an option of the recorder decides which rows it tracks, by default all. If a request
hits nearly every batch (a class of ten does), a strength of 1 leads back to about the initial weights.
The share of batches hit is logged as `batches_hit`.
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021, section "Amnesiac unlearning".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from methods.base import Problem
from methods.families.subtraction import Subtraction
from methods.recording.batch_updates import BatchUpdates, Unpacker, UpdateRecord, Whole
from methods.recording.recorder import Recorder


@dataclass(frozen=True)
class Amnesiac(Subtraction):
    kind: ClassVar[str] = "methods.amnesiac.Amnesiac"
    records: ClassVar[type[Recorder] | None] = BatchUpdates
    logs: ClassVar[tuple[str, ...]] = (*Subtraction.logs, "batches_hit")
    unpacker: ClassVar[Unpacker] = Whole

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        record = UpdateRecord.open(problem.recording, type(self).unpacker)
        # (U,): true for every recorded step t with b_t ∩ D_f ≠ ∅
        hit = record.hit(problem.forget_rows)
        problem.conditions.log({"batches_hit": int(hit.sum()) / max(1, record.steps)})
        return self.subtracted(problem, record.total(hit))  # Σ Δ_t over the steps that are hit
