"""Per-sample amnesiac: subtract what the forgotten rows themselves have added.

Idea: as amnesiac, but leaving the other rows of their batches alone.
Update rule: θ_u = θ_o − strength · Σ_{i ∈ D_f} share_i; share_i = Σ_t c_t·g_{i,t}/B_t from the record.
Needs: a record of per-sample gradients (`recorder=per_sample`), and no data at all.
Differs from the paper: it stores a random tenth of every gradient and leaves the coefficient open; the
record is complete here (factored), and the coefficient is SGD's exact one, or the step's learning rate.
`strength` 1 is the linear share; later steps have made up for part of it, so less can be enough.
Reference: paper 004 (Marincione).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from methods.base import Access, Method, Problem
from methods.recorders.per_sample import PerSample, SampleRecord
from methods.recording import Recorder


@dataclass(frozen=True)
class PerSampleAmnesiac(Method):
    access: ClassVar[Access] = Access.NOTHING
    records: ClassVar[type[Recorder] | None] = PerSample
    strength: float

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        assert problem.recording is not None
        share = SampleRecord.open(problem.recording).share(problem.model, problem.forget_rows)
        for name, parameter in problem.model.named_parameters():
            parameter.sub_(share[name], alpha=self.strength)
        return problem.model
