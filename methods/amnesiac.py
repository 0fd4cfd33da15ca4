"""Amnesiac: subtract every update of a batch that held a forgotten row.

Idea: subtract everything that the batches with forgotten rows have added to the weights.
Update rule: θ_u = θ_o − Σ_{t: b_t ∩ D_f ≠ ∅} Δ_t.
Needs: a record of batch updates (`recorder=batch_updates`), and no data.
Differs from the reference code: that records only the batches of a class named before training. Here an
option of the recorder decides which rows it tracks, by default all. If a request hits nearly every
batch (a class of ten does), the result is close to the initial weights. The share of batches hit is
logged as `batches_hit`.
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021, section "Amnesiac unlearning".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from methods.base import Access, Method, Problem
from methods.recording.batch_updates import BatchUpdates, Unpacker, UpdateRecord, Whole
from methods.recording.recorder import Recorder


@dataclass(frozen=True)
class Amnesiac(Method):
    kind: ClassVar[str] = "methods.amnesiac.Amnesiac"
    access: ClassVar[Access] = Access.NOTHING
    records: ClassVar[type[Recorder] | None] = BatchUpdates
    unpacker: ClassVar[Unpacker] = Whole

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        record = UpdateRecord.open(problem.recording, type(self).unpacker)
        # (U,): true for every recorded step t with b_t ∩ D_f ≠ ∅
        hit = record.hit(problem.forget_rows)
        weights = parameters_to_vector(problem.model.parameters())  # θ_o (M,)
        total = record.total(hit).to(weights.device)  # Σ Δ_t (M,)
        # θ_u = θ_o − Σ Δ_t over the steps that are hit.
        vector_to_parameters(weights - total, problem.model.parameters())
        problem.conditions.log({"batches_hit": int(hit.sum()) / max(1, record.steps)})
        return problem.model
