"""LFSSD: selective dampening without labels.

Idea: a weight matters to rows if the size of their outputs depends on it. The size needs no labels.
Update rule: as SSD's, with I_S,i the mean over batches of |∂ mean‖f(x)‖²/∂θᵢ|.
Needs: the forgotten and the retained rows; one gradient of each. Labels only decide the order of the
retained rows, which go class by class.
Differs from the reference code: no batch mixes forgotten and retained rows. The importance is a mean
over batches and depends on their size. SSD's bound on α holds in numbers of batches; a warning before
the run says if α is not below it.
Reference: Foster et al., Loss-Free Machine Unlearning, 2024 (arXiv 2402.19308); α as for SSD.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from data.bounds import COUNT, STRENGTH
from methods.base import Access, Facts, Method, Problem
from methods.families.dampening import dampen, measured, warn_if_nothing_can_be_selected
from methods.weights.importance import sensitivity


@dataclass(frozen=True)
class LFSSD(Method):
    kind: ClassVar[str] = "methods.lfssd.LFSSD"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("selected",)
    alpha: Annotated[float, STRENGTH]
    dampening: Annotated[float, STRENGTH]
    batch_size: Annotated[int, COUNT]

    def check(self, facts: Facts) -> None:
        warn_if_nothing_can_be_selected(self.alpha, facts, self.batch_size)

    def unlearn(self, problem: Problem) -> nn.Module:
        # I_f and I_D, the means over batches of |∂ mean‖f(x)‖²/∂θ|
        forget, everything = measured(problem, sensitivity, self.batch_size)
        # θᵢ ← min(λ·I_D,i / I_f,i, 1)·θᵢ if I_f,i > α·I_D,i
        selected = dampen(problem.model, forget, everything, self.alpha, self.dampening)
        problem.conditions.log({"selected": selected})
        return problem.model
