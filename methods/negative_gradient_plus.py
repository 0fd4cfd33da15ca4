"""NegGrad+: climb the loss of the forgotten rows while descending that of the rest, in every step.

Idea: gradient ascent held in check by rehearsal.
Update rule: θ ← θ − η ∇[a CE(B_r) − (1 − a) CE(B_f)], from θ_o; B_r runs through D_r, B_f through D_f
again and again (`retain_weight` is a).
Needs: the forgotten and the retained rows.
Differs from the reference code: what is climbed has no upper bound, and a small network can be lost
within a few hundred steps, so the gradient's norm is clipped (`clip: null` restores theirs). The logged
loss is CE(B_r) alone.
Reference: Kurmanji et al., Towards Unbounded Machine Unlearning, NeurIPS 2023 (baseline "NegGrad+").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from data.split import Batch
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import batch_fits, zero_to_one
from methods.training.cost import pass_streams
from methods.training.descent import Descent
from methods.training.loop import curves, train
from models.precision import autocast


@dataclass(frozen=True)
class NegativeGradientPlus(Descent, Method):
    kind: ClassVar[str] = "methods.negative_gradient_plus.NegativeGradientPlus"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    retain_weight: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        zero_to_one(option, self, "retain_weight")

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.forget, "the part to forget")
        batch_fits("method", self, facts.retain, "the retained part")

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        steps = train(model, problem.retain, self, conditions)
        for _, batch in zip(curves(steps, conditions.log), self.forgotten(problem), strict=False):
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.retain_weight)
            with autocast(conditions.bf16, batch.images.device):
                logits = model(batch.images).float()
            (-(1 - self.retain_weight) * F.cross_entropy(logits, batch.labels)).backward()
        return model

    def forgotten(self, problem: Problem) -> Iterator[Batch]:
        """Batches of the forgotten rows, pass after pass, until the budget ends them."""
        streams = pass_streams(problem.conditions.streams.part("forget"))
        meter, spent = problem.conditions.meter, -1
        while spent < meter.cost.gradient_examples:  # else the last pass had nothing to give
            spent = meter.cost.gradient_examples
            yield from meter.batches(problem.forget, self.batch_size, streams)
