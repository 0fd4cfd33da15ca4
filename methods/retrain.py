"""Retrain: start again without the forgotten rows.

Idea: exact unlearning, the reference for every other method.
Update rule: train a fresh model by the original's recipe on the retained rows (on the relabelled rows,
if the request is to relabel).
Needs: the retained rows.
Differs from the reference code: SSD's "retrain" resets only the classifier's head (0.092 % of its
ResNet-18) and trains by another recipe. Here every tensor starts again, from a separate random stream,
and the recipe is the original's. An original that began with a file of weights (`model.weights`) is
retrained from that file, so the data behind the file is not forgotten; `reference.weights=null` retrains
the reference from scratch.
Reference: Bourtoule et al., Machine Unlearning, S&P 2021 (the naive baseline).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.base import Access, Facts, Method, Problem
from methods.training.checks import batch_fits
from methods.training.loop import fit


@dataclass(frozen=True)
class Retrain(Method):
    kind: ClassVar[str] = "methods.retrain.Retrain"
    access: ClassVar[Access] = Access.RETAIN
    starts_fresh: ClassVar[bool] = True
    makes_passes: ClassVar[bool] = True

    def check(self, facts: Facts) -> None:
        batch_fits("training", facts.recipe, facts.retain, "the retained part")

    def unlearn(self, problem: Problem) -> nn.Module:
        # a new θ_0: from a random stream that the original did not use, or from the file of weights
        problem.model.load_state_dict(problem.fresh(problem.conditions.streams).state_dict())
        return fit(problem.model, problem.retain, problem.recipe, problem.conditions)
