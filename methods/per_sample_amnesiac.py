"""Per-sample amnesiac: subtract the forgotten rows' share of every update.

Idea: amnesiac unlearning that spares the other rows of a batch.
Update rule: θ_u = θ_o − strength · Σ_{i ∈ D_f} share_i, with share_i = Σ_t c_t·g_{i,t}/B_t from the
record.
Needs: a record of per-sample gradients (`recorder=[per_sample]`) and no data; if `strength` is auto,
the forgotten rows.
Differs from the paper: the paper stores a random part of every gradient and does not say what c_t is.
Here the record is complete unless its `form: masked` asks for the paper's, and c_t is SGD's exact
coefficient or the learning rate of the step, so that a `strength` of 1 subtracts the linear share.
Reference: paper 004 (Marincione).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from methods.base import Problem
from methods.families.subtraction import Subtraction
from methods.recording.per_sample import PerSample, SampleRecord
from methods.recording.recorder import Recorder


@dataclass(frozen=True)
class PerSampleAmnesiac(Subtraction):
    kind: ClassVar[str] = "methods.per_sample_amnesiac.PerSampleAmnesiac"
    version: ClassVar[int] = (
        3  # 1 subtracted something even if nothing had to be; 2 searched in steps of 1/32
    )
    records: ClassVar[type[Recorder] | None] = PerSample

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        # Σ_{i ∈ D_f} Σ_t c_t·g_{i,t}/B_t, by parameter name
        share = SampleRecord.open(problem.recording).share(problem.model, problem.forget_rows)
        total = torch.cat([share[name].flatten() for name, _ in problem.model.named_parameters()])
        return self.subtracted(problem, total)
