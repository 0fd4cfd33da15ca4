"""LFSSD: selective dampening that asks for no labels.

Idea: a weight matters to rows if the size of their outputs depends on it, whatever their labels are.
Update rule: as SSD's, with I_S,i the mean over batches of |∂ mean‖f(x)‖²/∂θᵢ|.
Needs: the forgotten and the retained rows, one gradient of each; their labels are not read but to put
the rest in the order of its classes.
Differs from the reference code: the rows to forget have batches of their own. The importance is a mean
over batches and depends on their size; SSD's bound on α holds in numbers of batches, and a warning
says where it is not met.
Reference: Foster et al., Loss-Free Machine Unlearning, 2024 (arXiv 2402.19308); α as for SSD.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.base import Access, Facts, Method, Problem
from methods.families.dampening import dampen, measured, warn_where_nothing_can_be_selected
from methods.training.checks import at_least_one, zero_or_more
from methods.weights.importance import sensitivity


@dataclass(frozen=True)
class LFSSD(Method):
    kind: ClassVar[str] = "methods.lfssd.LFSSD"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    alpha: float
    dampening: float
    batch_size: int

    def check_parameters(self, option: str) -> None:
        zero_or_more(option, self, "alpha", "dampening")
        at_least_one(option, self, "batch_size")

    def check(self, facts: Facts) -> None:
        warn_where_nothing_can_be_selected(self.alpha, facts, self.batch_size)

    def unlearn(self, problem: Problem) -> nn.Module:
        forget, everything = measured(problem, sensitivity, self.batch_size)
        selected = dampen(problem.model, forget, everything, self.alpha, self.dampening)
        problem.conditions.log({"selected": selected})
        return problem.model
