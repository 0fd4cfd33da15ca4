"""SalUn: random labels, learned only by the weights that matter to the forgotten rows.

Idea: a weight with a small gradient on the forgotten rows (a low saliency) need not move.
Update rule: m_i = 1 for the `share` of all weights with the largest |Σ_{D_f} ∂CE/∂θ_i| at θ_o. Each
epoch first passes over D_f with newly drawn wrong labels, then over D_r: θ ← θ − η m ⊙ ∇CE, from θ_o. A
weight with m_i = 0 keeps every bit in spite of momentum and weight decay.
Needs: the forgotten and the retained rows.
Differs from the reference code: its labels may be the true one. Here, as in the paper, they never are,
and they never name a class that is forgotten as a whole. The sum runs over rows, not over the means of
batches. Weight decay moved its masked weights until February 2026. Its CIFAR-100 path mixes both parts
in one pass; this is its CIFAR-10 path.
Reference: Fan et al., SalUn, ICLR 2024.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from data.bounds import POSITIVE_SHARE
from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.random_labels import wrong_labels
from methods.training.descent import Descent
from methods.training.loop import Phase, of_phase
from methods.weights.gradients import summed_gradients
from methods.weights.masks import largest, only


@dataclass(frozen=True)
class SalUn(Descent, Method):
    """`share` is the share of all weights, above 0 and at most 1, that may move."""

    kind: ClassVar[str] = "methods.salun.SalUn"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    version: ClassVar[int] = 2  # 1 took the saliency of augmented images
    logs: ClassVar[tuple[str, ...]] = (*of_phase("forget"), *of_phase("retain"))
    share: Annotated[float, POSITIVE_SHARE]

    def check(self, facts: Facts) -> None:
        weights = sum(parameter.numel() for parameter in facts.outline().parameters())
        if round(self.share * weights) == 0:
            raise UserError(
                f"method.share={self.share} frees none of the {weights} weights: set it above "
                f"{1 / weights:.1g}"
            )

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions, rest = problem.model, problem.conditions, problem.rest
        # m, by parameter: 1 for the `share` of all weights with the largest |Σ_{D_f} ∂CE/∂θ|
        masks = largest(saliency(problem, self.batch_size), self.share)
        labels = conditions.streams("labels")
        conditions.meter.progress.expect(self.epochs * (len(problem.forget) + len(rest)))
        with only(model, masks):
            forget = Phase(model, problem.forget, self, conditions, name="forget")
            retain = Phase(model, rest, self, conditions, optimizer=forget.optimizer, name="retain")
            for epoch in range(self.epochs):
                # new ỹ in every epoch
                wrong = wrong_labels(problem.forget, rest, problem.classes, labels)
                forget.split = problem.forget.relabelled(wrong)
                forget.run(epoch)
                retain.run(epoch)
        return model


def saliency(problem: Problem, batch_size: int) -> dict[str, Tensor]:
    """Return |Σ_{x ∈ D_f} ∂CE(x)/∂θ| by parameter name, in the parameter's shape.

    Puts the model into evaluation mode, uses images without augmentation and leaves no gradients.
    """
    summed = summed_gradients(problem.model, problem.forget, batch_size, problem.conditions)
    return {name: gradient.abs() for name, gradient in summed.items()}
