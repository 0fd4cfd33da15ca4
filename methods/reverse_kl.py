"""Reverse KL: imitate a teacher from which the knowledge of the forgotten rows has been subtracted.

Idea: further training on the forgotten rows raises the logits that carry knowledge of them. The teacher
is the original minus that gain.
Update rule: θ_s is θ_o after `strengthen_epochs` epochs of descent on CE(D_f). The teacher's logits are
l_o − a·ReLU(l_s − l_o), and `strength` is a. θ ← θ − η T²·∇KL(p_θ ‖ p_teacher) on D_f, from θ_o; both
distributions are softmaxes at temperature T.
Needs: the forgotten rows. If the original knows them perfectly, there is no gain, and nothing is
forgotten.
Differs from the paper: the paper unlearns sequences of a language model, token by token. Here the K
logits of a classifier stand for the vocabulary.
Reference: Wang et al., RKLD, 2024 (arXiv 2406.01983), as paper 000 cites it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from torch import Tensor, nn

from data.bounds import EPOCHS, POSITIVE, STRENGTH
from data.split import Batch
from methods.base import Access, Method, Problem
from methods.families.distillation import Teacher, divergence
from methods.training.descent import Descent
from methods.training.loop import Phase, alternate, of_phase


@dataclass(frozen=True)
class ReverseKL(Descent, Method):
    """`strengthen_epochs` counts the epochs of the strengthened model, `strength` is a, and
    `temperature` is T."""

    kind: ClassVar[str] = "methods.reverse_kl.ReverseKL"
    access: ClassVar[Access] = Access.FORGET
    logs: ClassVar[tuple[str, ...]] = of_phase("strengthen")
    strengthen_epochs: Annotated[int, EPOCHS]
    strength: Annotated[float, STRENGTH]
    temperature: Annotated[float, POSITIVE]

    def phases(self) -> Mapping[str, int]:
        return {**super().phases(), "strengthen_epochs": self.strengthen_epochs}

    def idle(self) -> Mapping[str, str]:
        if self.strengthen_epochs:
            return super().idle()
        return {**super().idle(), "strength": "strengthen_epochs=0 gains nothing"}

    def unlearn(self, problem: Problem) -> nn.Module:
        conditions = problem.conditions
        strengthened = Teacher(self.strengthened(problem), conditions)
        original = Teacher(problem.original(), conditions)

        def imitation(logits: Tensor, batch: Batch) -> Tensor:
            known = original(batch.images)  # l_o
            gain = (strengthened(batch.images) - known).relu()  # ReLU(l_s − l_o)
            # T²·KL(p_θ ‖ p_teacher), the student first: the reverse of distillation's order
            return divergence(logits, known - self.strength * gain, self.temperature)

        alternate([Phase(problem.model, problem.forget, self, conditions, imitation)], self.epochs)
        return problem.model

    def strengthened(self, problem: Problem) -> nn.Module:
        """Return the original after `strengthen_epochs` more epochs on the forgotten rows."""
        longer = replace(self, epochs=self.strengthen_epochs)
        model = problem.original()
        phase = Phase(model, problem.forget, longer, problem.conditions, name="strengthen")
        alternate([phase], self.strengthen_epochs)
        return model
