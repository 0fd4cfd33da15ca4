"""SSD: dampen the weights that matter to the forgotten rows far more than to all rows.

Idea: Fisher information shows which weights store the forgotten rows; shrink those.
Update rule: θᵢ ← βᵢθᵢ if I_f,i > α·I_D,i, with βᵢ = min(λ·I_D,i / I_f,i, 1). I_S,i is the mean over S
of (∂ ln p(y|x)/∂θᵢ)². `alpha` is α, `dampening` is λ. No training step is taken.
Needs: the forgotten and the retained rows; one gradient of each.
Differs from the reference code: with `fisher: per_sample` each row's gradient is squared, as in the
paper, and neither batch size nor order matters. The code squares the mean gradient of a batch (`fisher:
batch`), so that its α depends on both.
`order` decides the batches of I_D with `fisher: batch`. With `apart`, D_f has its own batches, the rest
goes class by class, and no batch mixes the two. The code makes one pass over the rest and then D_f:
`by_class` for its requests for a class (fine classes if a part of a class goes), `shuffled` for its
random rows, whose script uses batches of 128. One pass takes a second gradient of each forgotten row.
Bound on α: D contains D_f, so I_f ≤ (|D|/|D_f|)·I_D, and an α of |D|/|D_f| or more (10 for one class of
ten) selects nothing; a warning says so before the run. The bound is exact for `per_sample`. In batches
of B it counts batches, and holds if D_f's batches in D are those of I_f: with `apart`, or if B divides
|D_r|. Otherwise one pass cuts D_f into other batches, and selects weights beyond the bound.
Reference: Foster et al., Fast Machine Unlearning Without Retraining Through Selective Synaptic
Dampening, AAAI 2024.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from data.bounds import COUNT, STRENGTH
from data.errors import UserError
from data.split import Split
from methods.base import Access, Facts, Method, Problem
from methods.families.dampening import by_class, dampen, measured, warn_if_nothing_can_be_selected
from methods.weights.importance import Importance, Measure, batch_fisher, per_sample_fisher


class Fisher(Enum):
    """The gradient that is squared: each row's, or the mean of a batch."""

    per_sample = "per_sample"
    batch = "batch"


class Order(Enum):
    """The batches of I_D. `apart`: the rest class by class, then D_f in its own batches. `by_class` and
    `shuffled`: one pass over the rest in that order and then D_f, so that one batch may hold both."""

    apart = "apart"
    by_class = "by_class"
    shuffled = "shuffled"


@dataclass(frozen=True)
class SSD(Method):
    kind: ClassVar[str] = "methods.ssd.SSD"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("selected",)
    alpha: Annotated[float, STRENGTH]
    dampening: Annotated[float, STRENGTH]
    fisher: Fisher
    order: Order
    batch_size: Annotated[int, COUNT]

    def identity(self) -> dict[str, Any]:
        """Return all fields but the order `apart`: results from before the field had that order."""
        return {name: value for name, value in super().identity().items() if value is not Order.apart}

    def check_parameters(self, option: str) -> None:
        if self.fisher is Fisher.per_sample and self.order is not Order.apart:
            raise UserError(
                f"{option}.order={self.order.name} orders batches, and {option}.fisher=per_sample has "
                f"none: set {option}.fisher=batch, or {option}.order=apart"
            )

    def check(self, facts: Facts) -> None:
        size = self.batch_size if self.fisher is Fisher.batch else None
        if self.order is Order.apart or (facts.all - facts.forget) % self.batch_size == 0:
            warn_if_nothing_can_be_selected(self.alpha, facts, size)

    def unlearn(self, problem: Problem) -> nn.Module:
        # I_f and I_D, the means of squared gradients over D_f and D
        forget, everything = _ORDERS[self.order](problem, _MEASURES[self.fisher], self.batch_size)
        # θᵢ ← min(λ·I_D,i / I_f,i, 1)·θᵢ if I_f,i > α·I_D,i
        selected = dampen(problem.model, forget, everything, self.alpha, self.dampening)
        problem.conditions.log({"selected": selected})
        return problem.model


def _by_class(problem: Problem, measure: Measure, size: int) -> tuple[Importance, Importance]:
    rest = problem.rest
    # A forgotten class of which rows are retained is forgotten in part: that script sorts fine classes.
    in_part = bool(torch.isin(problem.forget.labels, rest.labels).any())
    if in_part and rest.fine is not None:
        return _in_one_pass(problem, measure, size, rest.take(rest.fine.argsort(stable=True)))
    return _in_one_pass(problem, measure, size, by_class(rest))


def _shuffled(problem: Problem, measure: Measure, size: int) -> tuple[Importance, Importance]:
    # the rest in random order, as in the loader of that script
    rest = problem.rest.drawn(problem.conditions.streams("order"))
    return _in_one_pass(problem, measure, size, rest)


def _in_one_pass(
    problem: Problem, measure: Measure, size: int, rest: Split
) -> tuple[Importance, Importance]:
    """Return the importance to D_f, and to D in one pass over the rest followed by D_f."""
    model, conditions = problem.model, problem.conditions
    forget = measure(model, problem.forget, size, conditions)
    everything = measure(model, rest.joined(problem.forget), size, conditions)
    if conditions.meter.cut:  # the pass did not reach D_f, which D must contain
        everything = everything.joined(forget)
    return forget, everything


_MEASURES: dict[Fisher, Measure] = {Fisher.per_sample: per_sample_fisher, Fisher.batch: batch_fisher}
_ORDERS: dict[Order, Callable[[Problem, Measure, int], tuple[Importance, Importance]]] = {
    Order.apart: measured,
    Order.by_class: _by_class,
    Order.shuffled: _shuffled,
}
