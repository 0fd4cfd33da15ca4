"""Random labels: teach wrong answers for the forgotten rows and right ones for the rest.

Idea: overwrite what the model knows about the forgotten rows while rehearsing the others.
Update rule: θ ← θ − η ∇CE on D_r ∪ {(x, ỹ) : x ∈ D_f}, from θ_o. Each ỹ is drawn once, uniformly from
the classes other than the row's label and the classes that are forgotten as a whole.
Needs: the forgotten and the retained rows.
Differs from the reference code: nothing. The codes of Bad Teacher and SSD call this "amnesiac".
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021, section "Unlearning"; as implemented by
Chundawat et al. 2023 and Foster et al. 2024 (3 epochs, Adam 1e-4, batch 128).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.errors import UserError
from data.split import Split
from methods.base import Access, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import fit


@dataclass(frozen=True)
class RandomLabels(Descent, Method):
    kind: ClassVar[str] = "methods.random_labels.RandomLabels"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN

    def unlearn(self, problem: Problem) -> nn.Module:
        wrong = wrong_labels(
            problem.forget, problem.retain, problem.classes, problem.conditions.streams("labels")
        )
        # D_r ∪ {(x, ỹ) : x ∈ D_f}
        mixed = problem.rest.joined(problem.forget.relabelled(wrong))
        return fit(problem.model, mixed, self, problem.conditions)


def wrong_labels(forget: Split, retain: Split, classes: int, rng: torch.Generator) -> Tensor:
    """Draw (F,) int64 labels, each uniform over the retained classes other than the row's label.

    A class without retained rows is excluded, because it is being forgotten. Raise UserError if no
    class is left for a row.
    """
    # p(ỹ = k) ∝ 1[k is retained] · 1[k ≠ y], one line of weights per row
    allowed = torch.zeros(classes)
    allowed[retain.labels.unique().cpu()] = 1
    weights = allowed.repeat(len(forget), 1)
    weights[torch.arange(len(forget)), forget.labels.cpu()] = 0
    if not weights.any(1).all():
        raise UserError(
            "only rows of one class are retained, so its forgotten rows have no wrong label to take: "
            "choose a request that retains rows of another class"
        )
    return torch.multinomial(weights, 1, generator=rng)[:, 0]
