"""Random labels: teach wrong answers for the forgotten rows, right ones for the rest.

Idea: overwrite what is known of the forgotten rows while rehearsing the others.
Update rule: θ ← θ − η ∇CE on D_r ∪ {(x, ỹ) : x ∈ D_f}, from θ_o; ỹ is drawn once, uniformly from
the classes that are not among the row's own label (nor among the labels of a whole forgotten class).
Needs: the forgotten and the retained rows.
Differs from reference code: nothing. Bad-teaching and SSD call this "amnesiac".
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021, section "Unlearning"; as implemented
by Chundawat et al. 2023 and Foster et al. 2024 (3 epochs, Adam 1e-4, batch 128).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.errors import UserError
from data.split import Split
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import batch_fits
from methods.training.descent import Descent
from methods.training.loop import fit


@dataclass(frozen=True)
class RandomLabels(Descent, Method):
    kind: ClassVar[str] = "methods.random_labels.RandomLabels"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.all, "the training set")

    def unlearn(self, problem: Problem) -> nn.Module:
        wrong = wrong_labels(
            problem.forget, problem.retain, problem.classes, problem.conditions.streams("labels")
        )
        mixed = problem.rest.joined(problem.forget.relabelled(wrong))
        return fit(problem.model, mixed, self, problem.conditions)


def wrong_labels(forget: Split, retain: Split, classes: int, rng: torch.Generator) -> Tensor:
    """(F,) labels, each uniform over the classes other than the row's own; classes of which nothing
    is retained are left out too, since no label may lead back to what is being forgotten. Raises
    UserError where a row has none left."""
    allowed = torch.zeros(classes)
    allowed[retain.labels.unique().cpu()] = 1
    weights = allowed.repeat(len(forget), 1)
    weights[torch.arange(len(forget)), forget.labels.cpu()] = 0
    if not weights.any(1).all():
        raise UserError(
            "only rows of one class are retained, and some of its own cannot be given a wrong label: "
            "retain rows of another class"
        )
    return torch.multinomial(weights, 1, generator=rng)[:, 0]
