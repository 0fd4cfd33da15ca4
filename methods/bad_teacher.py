"""Bad teacher: imitate a random model on the forgotten rows, and the original on the rest.

Idea: an untrained network knows nothing about the forgotten rows. Answer as it does on them.
Update rule: θ ← θ − η T²·∇KL(t ‖ p_θ) on D_f ∪ a random part of D_r, from θ_o. t is p_random on D_f and
p_{θ_o} on the rest; all distributions are softmaxes at temperature T.
Needs: the forgotten rows and the share `retain_fraction` of the retained ones, without their labels.
Differs from the reference code: the divergence is the mean over rows, times T²; there it is the mean
over rows and classes, which is K·T² times smaller. That matters to SGD and not to Adam. The incompetent
teacher has the model's architecture and random weights; there it is an ImageNet model with a new head.
Reference: Chundawat et al., Can Bad Teaching Induce Forgetting?, AAAI 2023.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from data.bounds import POSITIVE, SHARE
from data.split import Batch
from methods.base import Access, Method, Problem
from methods.families.distillation import Teacher, divergence
from methods.training.descent import Descent
from methods.training.loop import Phase, alternate


@dataclass(frozen=True)
class BadTeacher(Descent, Method):
    kind: ClassVar[str] = "methods.bad_teacher.BadTeacher"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    version: ClassVar[int] = 2  # 1 began the random teacher at a file of weights, if there was one
    retain_fraction: Annotated[float, SHARE]
    temperature: Annotated[float, POSITIVE]

    def unlearn(self, problem: Problem) -> nn.Module:
        conditions, forget = problem.conditions, problem.forget
        competent = Teacher(problem.original(), conditions)
        incompetent = Teacher(problem.randomly_initialised(conditions.streams), conditions)

        def imitation(logits: Tensor, batch: Batch) -> Tensor:
            # (B, 1): true for the rows of D_f
            forgotten = torch.isin(batch.rows, forget.rows)[:, None]
            # t: the incompetent teacher's answer on D_f, the original's elsewhere.
            target = torch.where(forgotten, incompetent(batch.images), competent(batch.images))
            # T²·KL(t ‖ p_θ)
            return divergence(target, logits, self.temperature)

        rest = problem.rest
        # a random part of D_r, `retain_fraction` of its rows
        part = rest.drawn(conditions.streams("sample"), round(self.retain_fraction * len(rest)))
        both = part.joined(forget)
        alternate([Phase(problem.model, both, self, conditions, imitation)], self.epochs)
        return problem.model
