"""Negative gradient: climb the loss of the forgotten rows.

Idea: undo learning by gradient ascent.
Update rule: θ ← θ + η ∇CE(D_f), from θ_o, until the loss reaches ln K (the loss of a uniform guess) or
the epochs end. `stop_loss` sets another limit, in nats. The loss that is compared is the mean over the
rows of the last batches: as many batches as one pass has, at most 32. Before that many, it is the mean
over all batches so far.
Needs: the forgotten rows.
Differs from the papers: they run a fixed number of epochs and often destroy the model, because the loss
has no upper limit. The stop rule is part of the method here; `stop_loss=inf` restores theirs. The step
of the stop and its loss are logged.
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021; Golatkar et al., CVPR 2020 (NegGrad).
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from data.bounds import LOSS
from methods.base import Access, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import curves, train

# The loss is averaged over at most this many batches, because the loss of one batch is heavy-tailed.
WINDOW = 32


@dataclass(frozen=True)
class NegativeGradient(Descent, Method):
    """`stop_loss` is the mean loss, in nats, at which the ascent stops; null means ln K, inf never."""

    kind: ClassVar[str] = "methods.negative_gradient.NegativeGradient"
    access: ClassVar[Access] = Access.FORGET
    version: ClassVar[int] = 3  # 1 stopped at the loss of one batch, 2 not before the window was full
    logs: ClassVar[tuple[str, ...]] = ("stopped_at_step", "forget_loss")
    stop_loss: Annotated[float, LOSS] | None

    def unlearn(self, problem: Problem) -> nn.Module:
        # a uniform guess has the loss −ln(1/K) = ln K
        limit = math.log(problem.classes) if self.stop_loss is None else self.stop_loss
        log = problem.conditions.log
        window = min(WINDOW, math.ceil(len(problem.forget) / self.batch_size))
        recent: deque[tuple[float, int]] = deque(maxlen=window)  # losses and rows of the last batches
        steps = train(problem.model, problem.forget, self, problem.conditions, climbs=True)
        updating = self.updating(steps, problem.model, problem.conditions.streams)
        for step in curves(updating, log):
            recent.append((step.loss.item(), len(step.batch.rows)))
            # mean CE over the window: Σ_b n_b·CE_b / Σ_b n_b
            loss = sum(mean * rows for mean, rows in recent) / sum(rows for _, rows in recent)
            if loss >= limit:
                log({"stopped_at_step": step.number, "forget_loss": loss})
                break
        return problem.model
