"""Label flip: teach wrong answers for the forgotten rows.

Idea: overwrite what the model knows about the forgotten rows, then repair the damage with `repair=`.
Update rule: θ ← θ − η ∇CE on {(x, ỹ) : x ∈ D_f}, and on D_r if `include_retain` is set, from θ_o. Each
ỹ is drawn once, uniformly from the classes other than the row's label.
Needs: the forgotten rows; with `include_retain` the retained rows too.
Differs from the paper: the paper gives no numbers and leaves open if the retained rows are shown too,
so `include_retain` is an option. It only calls the labels "incorrect", so a flipped label may name
another forgotten class here; `random_labels` excludes those.
Reference: Gogineni & Nadimi 2024 (paper 002), "Label Flipping".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.split import Split
from methods.base import Access, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import curves, train


@dataclass(frozen=True)
class LabelFlip(Descent, Method):
    """`include_retain` adds the retained rows, under their own labels, to every epoch."""

    kind: ClassVar[str] = "methods.label_flip.LabelFlip"
    access: ClassVar[Access] = Access.FORGET
    include_retain: bool

    def sees(self) -> Access:
        return Access.FORGET | Access.RETAIN if self.include_retain else Access.FORGET

    def unlearn(self, problem: Problem) -> nn.Module:
        wrong = flipped(problem.forget, problem.classes, problem.conditions.streams("labels"))
        # {(x, ỹ) : x ∈ D_f}
        shown = problem.forget.relabelled(wrong)
        if self.include_retain:
            shown = problem.rest.joined(shown)
        model, conditions = problem.model, problem.conditions
        steps = train(model, shown, self, conditions)
        for _ in curves(self.updating(steps, model, conditions.streams), conditions.log):
            pass
        return model


def flipped(forget: Split, classes: int, rng: torch.Generator) -> Tensor:
    """Draw (F,) int64 labels, each uniform over the classes other than the row's label."""
    # ỹ = (y + d) mod K with d uniform over 1 … K − 1, which never returns y
    away = torch.randint(1, classes, (len(forget),), generator=rng).to(forget.labels.device)
    return (forget.labels + away) % classes
