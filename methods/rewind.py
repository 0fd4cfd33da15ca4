"""Rewind (R2D): go back to an earlier state of the training, and go on without the forgotten rows.

Idea: the last part of a training, taken again on the retained rows, ends near a retraining.
Update rule: θ ← θ_{T−K}, the weights K steps before the end of the original's training of T steps. Then
K steps of the original's recipe on D_r, at the learning rates of the steps that they replace, then
θ_u = θ + N(0, σ²I). `share` is K/T, rounded down to whole epochs: 1 is a retraining from the original's
initial weights, 0 is the original.
Needs: the retained rows and the record of `recorder=[checkpoints]`.
Certificate: none and σ = 0, unless `smoothness` L and `gradient_norm` G are given. Then σ is the
smallest that proves (`epsilon`, `delta`)-unlearning for results at most

    Δ = 2mG/(nL) · h(K),   h(K) = ((1 + ηLn/(n−m))^(T−K) − 1)·(1 + ηL)^K

from a retraining with the same initial weights, for n rows of which m are forgotten. Assumptions: both
trainings are full-batch gradient descent at a constant rate η (checked), nothing in a pass is random
(augmentation, dropout), the gradient of no row's loss exceeds the norm G on the way, and the mean loss
with its weight decay is L-smooth. Proof: the mean gradients over D and over D_r differ by
(m/n)·(ḡ_f − ḡ_r), whose norm is at most 2mG/n. So the distance e of the two trainings grows as
e_{t+1} ≤ (1 + ηL)e_t + 2ηmG/n, from e_0 = 0, to e_{T−K} ≤ 2mG/(nL)·((1 + ηL)^(T−K) − 1). Each of the K
steps on the same rows multiplies it by at most 1 + ηL. The paper's n/(n−m) only enlarges this.
Differs from the paper: the constant before its h(K) is the one proved here. A checkpoint holds the
weights alone, so momentum begins at zero. The steps are those of the recipe; with its mini-batches
nothing is certified.
Reference: Mu & Klabjan, Rewind-to-Delete, NeurIPS 2025 (arXiv 2409.09778).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from data.bounds import INSIDE_SHARE, POSITIVE, SHARE
from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.recording.checkpoints import Checkpoints, weights_after
from methods.recording.recorder import Recorder
from methods.training.descent import Optimizer, Recipe, Schedule
from methods.training.loop import Phase
from methods.weights.certificate import CERTIFICATE, EPSILON, add_noise, certify, deviation_for
from models.precision import Precision


@dataclass(frozen=True)
class Rewind(Method):
    """`smoothness` and `gradient_norm` are both numbers, for a certificate, or both null, for none."""

    kind: ClassVar[str] = "methods.rewind.Rewind"
    access: ClassVar[Access] = Access.RETAIN
    records: ClassVar[type[Recorder] | None] = Checkpoints
    logs: ClassVar[tuple[str, ...]] = ("rewound_epochs", *CERTIFICATE)
    makes_passes: ClassVar[bool] = True
    share: Annotated[float, SHARE]
    epsilon: Annotated[float, EPSILON]
    delta: Annotated[float, INSIDE_SHARE]
    smoothness: Annotated[float, POSITIVE] | None
    gradient_norm: Annotated[float, POSITIVE] | None

    def idle(self) -> Mapping[str, str]:
        if self.smoothness is not None:
            return {}
        return dict.fromkeys(("epsilon", "delta"), "smoothness=null certifies nothing")

    def check_parameters(self, option: str) -> None:
        if (self.smoothness is None) != (self.gradient_norm is None):
            raise UserError(
                f"a certificate needs both {option}.smoothness and {option}.gradient_norm: set both, or "
                "set both to null for none"
            )

    def check(self, facts: Facts) -> None:
        if self.smoothness is None:
            return
        wanted = {
            "optimizer": Optimizer.sgd, "momentum": 0, "schedule": Schedule.constant, "warmup": 0,
            "clip": None, "batch_size": facts.all, "precision": Precision.fp32,
        }  # fmt: skip
        wrong = [name for name, value in wanted.items() if getattr(facts.recipe, name) != value]
        if wrong:
            raise UserError(
                "the certificate of method.smoothness is of full-batch gradient descent, which "
                f"training.{wrong[0]} is not: set {_written(wanted, wrong)}, or method.smoothness=null "
                "and method.gradient_norm=null"
            )
        distance = self.distance(facts.recipe, facts.all, facts.forget)
        if not math.isfinite(distance):
            raise UserError(
                "the certificate needs noise beyond all numbers: rewind more (method.share), train "
                "fewer epochs, or set method.smoothness=null and method.gradient_norm=null"
            )

    def rewound(self, recipe: Recipe) -> int:
        """Return the epochs to take again."""
        # ⌊share·E⌋; 0.29·100 is 28.999… in floating point
        return math.floor(round(self.share * recipe.epochs, 9))

    def distance(self, recipe: Recipe, rows: int, forgotten: int) -> float:
        """Return Δ, or infinity if it is beyond all numbers; full-batch descent has a step per epoch."""
        assert self.smoothness is not None and self.gradient_norm is not None
        growth, again = recipe.lr * self.smoothness, self.rewound(recipe)
        try:
            # h(K) = ((1 + ηLn/(n−m))^(T−K) − 1)·(1 + ηL)^K
            before = (recipe.epochs - again) * math.log1p(growth * rows / (rows - forgotten))
            h = math.expm1(before) * math.exp(again * math.log1p(growth))
        except OverflowError:
            return math.inf
        # Δ = 2mG/(nL)·h(K)
        return 2 * forgotten * self.gradient_norm / (rows * self.smoothness) * h

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions, recipe = problem.model, problem.conditions, problem.recipe
        again = self.rewound(recipe)
        begin = recipe.epochs - again
        # θ ← θ_{T−K}
        model.load_state_dict(weights_after(problem.recording, begin))
        phase = Phase(model, problem.retain, recipe, conditions, completed=begin)
        conditions.meter.progress.expect(again * len(problem.retain))
        for epoch in range(begin, recipe.epochs):
            phase.run(epoch)
        conditions.log({"rewound_epochs": again})
        if self.smoothness is not None and not conditions.meter.cut:
            self.certify(problem)
        return model

    def certify(self, problem: Problem) -> None:
        """Add the noise, and log and print what it proves."""
        forgotten = len(problem.forget_rows)
        rows = len(problem.rest) + forgotten
        distance = self.distance(problem.recipe, rows, forgotten)
        deviation = deviation_for(self.epsilon, self.delta, distance)
        # θ_u = θ + N(0, σ²I)
        add_noise(problem.model, deviation, problem.conditions.streams("noise"))
        claim = (
            "against retraining from the same initial weights, if the mean loss is "
            f"{self.smoothness:g}-smooth, no row's gradient exceeds the norm {self.gradient_norm:g} on "
            "the way, and nothing in a pass is random"
        )
        certify(self.epsilon, self.delta, deviation, claim, problem.conditions.log)


def _written(wanted: dict[str, object], names: list[str]) -> str:
    """Return these values of the recipe as overrides."""
    texts = {name: getattr(wanted[name], "name", wanted[name]) for name in names}
    return " ".join(f"training.{name}={'null' if v is None else v}" for name, v in texts.items())
