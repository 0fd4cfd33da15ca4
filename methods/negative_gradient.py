"""Negative gradient: climb the loss of the forgotten rows.

Idea: undo learning by gradient ascent.
Update rule: θ ← θ + η ∇CE(D_f), from θ_o, until the loss reaches ln K (the loss of knowing nothing)
or the epochs are over; `stop_loss` sets another bound, in nats. The loss is the mean over the rows of
the last batches: as many as make a pass, at most 32.
Needs: the forgotten rows.
Differs from the papers: they stop after fixed epochs and often collapse; the loss has no upper
bound, so a bound is part of the method here. `stop_loss=inf` restores theirs. The step it stopped
at is logged, and the loss.
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021; Golatkar et al., CVPR 2020 (NegGrad).
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import batch_fits
from methods.training.descent import Descent
from methods.training.loop import curves, train

# Batches over which the loss is averaged, at most: a single batch's is heavy-tailed.
WINDOW = 32


@dataclass(frozen=True)
class NegativeGradient(Descent, Method):
    kind: ClassVar[str] = "methods.negative_gradient.NegativeGradient"
    access: ClassVar[Access] = Access.FORGET
    version: ClassVar[int] = 2  # 1 stopped at the loss of a single batch
    stop_loss: float | None

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        if self.stop_loss is not None and not self.stop_loss > 0:
            must = "it must be above 0 (inf for no bound), or null"
            raise UserError(f"{option}.stop_loss={self.stop_loss}: {must}")

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.forget, "the part to forget")

    def unlearn(self, problem: Problem) -> nn.Module:
        bound = math.log(problem.classes) if self.stop_loss is None else self.stop_loss
        log = problem.conditions.log
        window = min(WINDOW, math.ceil(len(problem.forget) / self.batch_size))
        recent: deque[tuple[float, int]] = deque(maxlen=window)  # loss and rows of a batch
        steps = train(problem.model, problem.forget, self, problem.conditions, ascent)
        updating = self.updating(steps, problem.model, problem.conditions.streams)
        for step in curves(updating, log):
            recent.append((-step.loss.item(), len(step.batch.rows)))
            loss = sum(mean * rows for mean, rows in recent) / sum(rows for _, rows in recent)
            if len(recent) == window and loss >= bound:
                log({"stopped_at_step": step.number, "forget_loss": loss})
                break
        return problem.model


def ascent(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative cross-entropy: descending it climbs the loss."""
    return -F.cross_entropy(logits, labels)
