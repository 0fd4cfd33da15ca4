"""DELETE: imitate the original's answer without the true class, on the forgotten rows alone.

Idea: take away the knowledge of the true class, and keep what the original says of the other classes.
That decoupled answer protects the rest of the model without any retained row.
Update rule: t = softmax(l_o) with the logit of the row's label set to −10¹⁰, which leaves it a
probability of 0. θ ← θ − η ∇KL(t ‖ p_θ) on D_f, from θ_o.
Needs: the forgotten rows. The original stays in memory beside the student.
Differs from the reference code: nothing.
Reference: Zhou et al., Decoupled Distillation to Erase: A General Unlearning Method for Any
Class-centric Tasks (DELETE), CVPR 2025; its code, `method/delete.py`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from data.split import Batch
from methods.base import Access, Method, Problem
from methods.families.distillation import Teacher, divergence
from methods.training.descent import Descent
from methods.training.loop import Phase, alternate

# The logit of a class that the target excludes: its softmax is exactly 0 in float32.
EXCLUDED = -1e10


@dataclass(frozen=True)
class DeleteKL(Descent, Method):
    kind: ClassVar[str] = "methods.delete_kl.DeleteKL"
    access: ClassVar[Access] = Access.FORGET

    def unlearn(self, problem: Problem) -> nn.Module:
        conditions = problem.conditions
        original = Teacher(problem.original(), conditions)

        def imitation(logits: Tensor, batch: Batch) -> Tensor:
            # KL(t ‖ p_θ), the mean over the batch
            return divergence(without_label(original(batch.images), batch.labels), logits, 1)

        alternate([Phase(problem.model, problem.forget, self, conditions, imitation)], self.epochs)
        return problem.model


def without_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits (B, K) with that of each row's label (B,) lowered to `EXCLUDED`."""
    return logits.scatter(1, labels[:, None], EXCLUDED)
