"""Label flip: teach wrong answers for the forgotten rows.

Idea: overwrite what is known of the forgotten rows, and repair afterwards (`repair=`) what that breaks.
Update rule: θ ← θ − η ∇CE on {(x, ỹ) : x ∈ D_f}, with D_r where `include_retain` says so, from θ_o;
ỹ is drawn once, uniformly from the classes other than the row's own.
Needs: the forgotten rows; the retained ones too with `include_retain`.
Differs from the paper: it does not say whether the retained rows are shown while labels are flipped
(`include_retain`), nor any number. As it says no more than "incorrect", a flipped label may be that of
another forgotten class; `random_labels` draws none of those.
Reference: paper 002 (Gogineni and Nadimi), "Label Flipping".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.split import Split
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import batch_fits
from methods.training.descent import Descent
from methods.training.loop import curves, train


@dataclass(frozen=True)
class LabelFlip(Descent, Method):
    kind: ClassVar[str] = "methods.label_flip.LabelFlip"
    access: ClassVar[Access] = Access.FORGET
    include_retain: bool

    def sees(self) -> Access:
        return Access.FORGET | Access.RETAIN if self.include_retain else Access.FORGET

    def check(self, facts: Facts) -> None:
        rows, part = facts.forget, "the part to forget"
        if self.include_retain:
            rows, part = facts.all, "the training set"
        batch_fits("method", self, rows, part)

    def unlearn(self, problem: Problem) -> nn.Module:
        wrong = flipped(problem.forget, problem.classes, problem.conditions.streams("labels"))
        shown = problem.forget.relabelled(wrong)
        if self.include_retain:
            shown = problem.rest.joined(shown)
        model, conditions = problem.model, problem.conditions
        steps = train(model, shown, self, conditions)
        for _ in curves(self.updating(steps, model, conditions.streams), conditions.log):
            pass
        return model


def flipped(forget: Split, classes: int, rng: torch.Generator) -> Tensor:
    """(F,) labels, each uniform over the classes other than the row's own."""
    away = torch.randint(1, classes, (len(forget),), generator=rng).to(forget.labels.device)
    return (forget.labels + away) % classes
