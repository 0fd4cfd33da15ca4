"""Bad teacher: on the forgotten rows imitate a random model, on the rest the original.

Idea: an untrained network knows nothing of the forgotten rows; answer there as it does.
Update rule: θ ← θ − η ∇KL(t ‖ p_θ) on D_f ∪ a random part of D_r, from θ_o; t = p_random on D_f,
p_{θ_o} on the rest, both at temperature T.
Needs: the forgotten rows and `retain_fraction` of the retained ones; neither's labels.
Differs from the reference code: the divergence is the mean over rows and not over rows and classes
(K times larger, and times T²), which matters to SGD and not to Adam; the incompetent teacher is the
model's own architecture at its random start, not an ImageNet model with a new head.
Reference: Chundawat et al., Can Bad Teaching Induce Forgetting?, AAAI 2023.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.split import Batch
from methods.base import Access, Facts, Method, Problem
from methods.families.distillation import Teacher, divergence
from methods.training.checks import above_zero, batch_fits, zero_to_one
from methods.training.descent import Descent
from methods.training.loop import Phase, alternate


@dataclass(frozen=True)
class BadTeacher(Descent, Method):
    kind: ClassVar[str] = "methods.bad_teacher.BadTeacher"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    version: ClassVar[int] = 2  # 1 took a file of weights, where there was one, for a random start
    retain_fraction: float
    temperature: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero(option, self, "temperature")
        zero_to_one(option, self, "retain_fraction")

    def check(self, facts: Facts) -> None:
        rest = facts.all - facts.forget
        rows = facts.forget + round(self.retain_fraction * rest)
        batch_fits("method", self, rows, "what is trained on")

    def unlearn(self, problem: Problem) -> nn.Module:
        conditions, forget = problem.conditions, problem.forget
        competent = Teacher(problem.original(), conditions)
        incompetent = Teacher(problem.randomly_initialised(conditions.streams), conditions)

        def imitation(logits: Tensor, batch: Batch) -> Tensor:
            forgotten = torch.isin(batch.rows, forget.rows)[:, None]
            target = torch.where(forgotten, incompetent(batch.images), competent(batch.images))
            return divergence(target, logits, self.temperature)

        rest = problem.rest
        order = torch.randperm(len(rest), generator=conditions.streams("sample"))
        chosen = order[: round(self.retain_fraction * len(rest))].to(rest.rows.device)
        both = rest.take(chosen).joined(forget)
        alternate([Phase(problem.model, both, self, conditions, imitation)], self.epochs)
        return problem.model
