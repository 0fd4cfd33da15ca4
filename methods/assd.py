"""ASSD: selective dampening that chooses its own threshold.

Idea: the share of rows to forget decides the share of weights to dampen.
Update rule: as SSD's, with α the percentile 100 − ln(1 + 100·|D_f|/|D|) of the ratio I_f,i / I_D,i over
all weights: it selects the highest ln(1 + 100·|D_f|/|D|) per cent (2.4 % for a tenth of the rows).
Needs: the forgotten and the retained rows; one gradient of each.
Differs from the reference code: its notebook squares the mean gradient of a batch, takes I_D over the
retained rows D_r instead of all rows D, and leaves `model.eval()` out; each of these raises α.
`fisher: batch` with `against: retained` follows the notebook. `fisher: training_batch` also measures in
training mode, in which batch norms use the statistics of each batch and move their running averages.
The notebook itself is in evaluation mode by then, because its training loop ends in that mode. With
`retained`, rows keep their order. The percentile is a ratio that occurs (nearest rank). A weight that
matters to no row counts with a ratio of 0. With `all`, a weight that matters to no retained row has the
largest ratio, |D|/|D_f| (in batches, that of their numbers); if all weights to select share that ratio,
none exceeds it: none is selected, and a warning says so. With `retained`, such a weight is left out of
the percentile, and becomes 0.
Reference: Schoepf et al., Parameter-Tuning-Free Data Entry Error Unlearning with Adaptive Selective
Synaptic Dampening, 2024 (arXiv 2402.10098).
"""

import logging
import math
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar

import numpy as np
from torch import nn

from data.bounds import COUNT, STRENGTH
from methods.base import Access, Method, Problem
from methods.families.dampening import dampen, measured
from methods.weights.importance import (
    Importance,
    Measure,
    batch_fisher,
    per_sample_fisher,
    training_fisher,
)


class Squared(Enum):
    """The gradient that is squared: each row's, or a batch's mean in evaluation or training mode."""

    per_sample = "per_sample"
    batch = "batch"
    training_batch = "training_batch"


class Against(Enum):
    """The rows of I_D: all, or the retained rows that are not forgotten."""

    all = "all"
    retained = "retained"


@dataclass(frozen=True)
class ASSD(Method):
    kind: ClassVar[str] = "methods.assd.ASSD"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("alpha", "selected")
    dampening: Annotated[float, STRENGTH]
    fisher: Squared
    against: Against
    batch_size: Annotated[int, COUNT]

    def identity(self) -> dict[str, Any]:
        """Return all fields but `per_sample` and `all`, which older results without the fields had."""
        before = (Squared.per_sample, Against.all)
        return {name: value for name, value in super().identity().items() if value not in before}

    def unlearn(self, problem: Problem) -> nn.Module:
        # |D_f|/|D|
        share = len(problem.forget) / (len(problem.forget) + len(problem.rest))
        forget, everything = self._importances(problem)
        # α is the percentile 100 − ln(1 + 100·|D_f|/|D|) of I_f/I_D
        alpha = ratio_at(forget, everything, 100 - math.log1p(100 * share))
        selected = dampen(problem.model, forget, everything, alpha, self.dampening)
        problem.conditions.log({"alpha": alpha, "selected": selected})
        if alpha > 0 and selected == 0:
            logging.getLogger(__name__).warning(
                "method=assd selects no weight: all that it would select share the largest ratio, %.3g; "
                "choose method=ssd with a method.alpha below that",
                alpha,
            )
        return problem.model

    def _importances(self, problem: Problem) -> tuple[Importance, Importance]:
        """Return I_f and I_D."""
        measure = _MEASURES[self.fisher]
        if self.against is Against.all:
            return measured(problem, measure, self.batch_size)
        model, conditions = problem.model, problem.conditions
        retained = measure(model, problem.rest, self.batch_size, conditions)
        return measure(model, problem.forget, self.batch_size, conditions), retained


def ratio_at(forget: Importance, everything: Importance, percentile: float) -> float:
    """Return the percentile (0 to 100, nearest rank) of I_f/I_D over all weights.

    0/0 counts as 0. Infinite ratios are left out; they exist only if I_D excludes the forgotten rows.
    """
    # One array for all weights, filled piece by piece: a concatenation would hold them twice.
    ratios, filled = np.empty(sum(value.numel() for value in forget.sums.values())), 0
    for name in forget.sums:
        for own, all_ in zip(forget.pieces(name), everything.pieces(name), strict=True):
            found = (own / all_).nan_to_num(nan=0.0, posinf=math.inf)  # I_f,i / I_D,i, and 0/0 = 0
            found = found[found.isfinite()].cpu()
            ratios[filled : filled + len(found)] = found
            filled += len(found)
    finite = ratios[:filled]
    # Nearest rank: the smallest ratio that `percentile` per cent of the ratios do not exceed.
    rank = max(1, math.ceil(percentile / 100 * len(finite)))
    finite.partition(rank - 1)  # in place: torch would make copies
    return float(finite[rank - 1])


_MEASURES: dict[Squared, Measure] = {
    Squared.per_sample: per_sample_fisher,
    Squared.batch: batch_fisher,
    Squared.training_batch: training_fisher,
}
