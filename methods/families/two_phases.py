"""Paper 003's two phases: every epoch passes over the forgotten rows, then over the retained ones.

Update rule: θ ← θ ∓ αβ ∇L_f on D_f, then θ ← θ − α ∇CE on D_r; α is the learning rate and β is
`factor`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from data.bounds import STRENGTH
from data.split import Batch
from methods.base import Access, Method, Problem
from methods.training.descent import Descent, Optimizer
from methods.training.loop import Phase, alternate, cross_entropy, of_phase


@dataclass(frozen=True)
class TwoPhases(Descent, Method):
    """The first phase descends `forget_loss`, or `climbs` it, at `factor` times the learning rate. The
    second one descends the cross-entropy. With `shared_momentum` one optimizer serves both phases,
    otherwise each has its own.

    A shared momentum μ carries the gradients of a forget phase on into the next phase, at the full rate
    α: each moves the weights by up to α(β + μ/(1 − μ)) in all, and not by αβ/(1 − μ). So a small β, even
    0, does not end the forget phase's effect: with μ = 0.9, β = 0.3 acts as 0.93, and 0.005 as 0.9.
    """

    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = (*of_phase("forget"), *of_phase("retain"))
    climbs: ClassVar[bool] = False
    factor: Annotated[float, STRENGTH]
    shared_momentum: bool

    def idle(self) -> Mapping[str, str]:
        if self.optimizer is not Optimizer.sgd or self.momentum:
            return super().idle()
        return {**super().idle(), "shared_momentum": "there is none: momentum=0"}

    def forget_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a batch of forgotten rows, from (B, K) logits."""
        raise NotImplementedError

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions, loss = problem.model, problem.conditions, self.forget_loss
        # θ ← θ ∓ αβ ∇L_f on D_f
        forget = Phase(
            model, problem.forget, self, conditions, loss,
            factor=self.factor, climbs=self.climbs, name="forget",
        )  # fmt: skip
        shared = forget.optimizer if self.shared_momentum else None
        # θ ← θ − α ∇CE on D_r
        retain = Phase(model, problem.retain, self, conditions, cross_entropy, shared, name="retain")
        alternate([forget, retain], self.epochs)
        return model
