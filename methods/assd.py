"""ASSD: selective dampening that chooses its own threshold.

Idea: how many weights to dampen follows from how many rows there are to forget.
Update rule: as SSD's, with α the percentile 100 − ln(1 + 100·|D_f|/|D|) of the ratio I_f,i / I_D,i
over all weights: the highest ln(1 + 100·|D_f|/|D|) per cent are selected (2.4 % for a tenth of the
rows).
Needs: the forgotten and the retained rows, one gradient of each.
Differs from the reference code: the Fisher information is per sample (see `methods.ssd`); the
percentile is a weight's own ratio (nearest rank), and weights that matter to no row count with a ratio
of 0.
Reference: Schoepf et al., Parameter-Tuning-Free Data Entry Error Unlearning with Adaptive Selective
Synaptic Dampening, 2024 (arXiv 2402.10098).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from methods.base import Access, Method, Problem
from methods.families.dampening import dampen, measured
from methods.training.checks import at_least_one, zero_or_more
from methods.weights.importance import Importance, per_sample_fisher


@dataclass(frozen=True)
class ASSD(Method):
    kind: ClassVar[str] = "methods.assd.ASSD"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    dampening: float
    batch_size: int

    def check_parameters(self, option: str) -> None:
        zero_or_more(option, self, "dampening")
        at_least_one(option, self, "batch_size")

    def unlearn(self, problem: Problem) -> nn.Module:
        share = len(problem.forget) / (len(problem.forget) + len(problem.rest))
        forget, everything = measured(problem, per_sample_fisher, self.batch_size)
        alpha = ratio_at(forget, everything, 100 - math.log1p(100 * share))
        selected = dampen(problem.model, forget, everything, alpha, self.dampening)
        problem.conditions.log({"alpha": alpha, "selected": selected})
        return problem.model


def ratio_at(forget: Importance, everything: Importance, percentile: float) -> float:
    """The percentile (0 to 100, nearest rank) of I_f/I_D over all weights; 0/0 counts as 0."""
    ratios, filled = np.empty(sum(value.numel() for value in forget.sums.values())), 0
    for name in forget.sums:
        for own, all_ in zip(forget.pieces(name), everything.pieces(name), strict=True):
            ratios[filled : filled + len(own)] = (own / all_).nan_to_num(nan=0.0).cpu()
            filled += len(own)
    rank = max(1, math.ceil(percentile / 100 * len(ratios)))
    ratios.partition(rank - 1)  # in place: torch would make copies
    return float(ratios[rank - 1])
