"""Negative gradient: climb the loss of the forgotten rows.

Idea: undo learning by gradient ascent.
Update rule: θ ← θ + η ∇CE(D_f), from θ_o, until the loss of a batch reaches ln K (the loss of
knowing nothing) or the epochs are over; `stop_loss` sets another bound, in nats.
Needs: the forgotten rows.
Differs from the papers: they stop after fixed epochs and often collapse; the loss has no upper
bound, so a bound is part of the method here. `stop_loss: .inf` restores theirs. The step it stopped
at is logged.
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021; Golatkar et al., CVPR 2020 (NegGrad).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Access, Facts, Method, Problem
from methods.training import Descent, curves, train


@dataclass(frozen=True)
class NegativeGradient(Descent, Method):
    access: ClassVar[Access] = Access.FORGET
    stop_loss: float | None

    def check(self, facts: Facts) -> None:
        self.check_rows("method", facts.forget, "the part to forget")

    def unlearn(self, problem: Problem) -> nn.Module:
        assert problem.forget is not None
        bound = math.log(problem.classes) if self.stop_loss is None else self.stop_loss
        log = problem.conditions.log
        steps = train(problem.model, problem.forget, self, problem.conditions, ascent)
        for step in curves(steps, log):
            if -step.loss.item() >= bound:
                log({"stopped_at_step": step.number, "forget_loss": -step.loss.item()})
                break
        return problem.model


def ascent(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative cross-entropy: descending it climbs the loss."""
    return -F.cross_entropy(logits, labels)
