"""Paper 003's two phases: every epoch a pass over the forgotten rows, then one over the retained."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from data.split import Batch
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import batch_fits, zero_or_more
from methods.training.descent import Descent
from methods.training.loop import Phase, alternate, cross_entropy


@dataclass(frozen=True)
class TwoPhases(Descent, Method):
    """The forgetting phase descends `forget_loss` at `factor` times the learning rate; the other
    descends the cross-entropy. With `shared_momentum` one optimizer serves both; else each has its own,
    with its own momentum."""

    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    factor: float
    shared_momentum: bool

    def forget_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """What is descended on the forgotten rows."""
        raise NotImplementedError

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        zero_or_more(option, self, "factor")

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.forget, "the part to forget")
        batch_fits("method", self, facts.retain, "the retained part")

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions, loss = problem.model, problem.conditions, self.forget_loss
        forget = Phase(model, problem.forget, self, conditions, loss, factor=self.factor, name="forget")
        shared = forget.optimizer if self.shared_momentum else None
        retain = Phase(model, problem.retain, self, conditions, cross_entropy, shared, name="retain")
        alternate([forget, retain], self.epochs)
        return model
