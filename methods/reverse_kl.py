"""Reverse KL: imitate a teacher from which the knowledge of the forgotten rows has been subtracted.

Idea: what the outputs gain when the forgotten rows are trained on further is what is known of them; a
teacher without it is the original minus that gain.
Update rule: θ_s: `strengthen_epochs` more of ∇CE(D_f) from θ_o; teacher logits l_o − a·ReLU(l_s − l_o)
(`strength` is a); θ ← θ − η ∇KL(p_θ ‖ p_teacher) on D_f, from θ_o.
Needs: the forgotten rows.
Where they are known perfectly there is nothing to gain, and nothing is forgotten.
Differs from the paper: that unlearns sequences of a language model, word by word; here the K logits of a
classifier stand for the vocabulary.
Reference: Wang et al., RKLD, 2024 (arXiv 2406.01983), as paper 000 cites it.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from data.split import Batch, Split
from methods.base import Access, Facts, Method, Problem
from methods.families.distillation import Teacher, divergence
from methods.training.checks import above_zero, batch_fits, zero_or_more
from methods.training.descent import Descent
from methods.training.loop import Phase, alternate


@dataclass(frozen=True)
class ReverseKL(Descent, Method):
    kind: ClassVar[str] = "methods.reverse_kl.ReverseKL"
    access: ClassVar[Access] = Access.FORGET
    strengthen_epochs: int
    strength: float
    temperature: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero(option, self, "temperature")
        zero_or_more(option, self, "strengthen_epochs", "strength")

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.forget, "the part to forget")

    def unlearn(self, problem: Problem) -> nn.Module:
        forget, conditions = problem.forget, problem.conditions
        strengthened = Teacher(self.strengthened(problem, forget), conditions)
        original = Teacher(problem.original(), conditions)

        def imitation(logits: Tensor, batch: Batch) -> Tensor:
            known = original(batch.images)
            gain = (strengthened(batch.images) - known).relu()
            return divergence(logits, known - self.strength * gain, self.temperature)

        alternate([Phase(problem.model, forget, self, conditions, imitation)], self.epochs)
        return problem.model

    def strengthened(self, problem: Problem, forget: Split) -> nn.Module:
        """The original after further epochs on the forgotten rows."""
        longer = replace(self, epochs=self.strengthen_epochs)
        model = problem.original()
        phase = Phase(model, forget, longer, problem.conditions, name="strengthen")
        alternate([phase], self.strengthen_epochs)
        return model
