"""How well a score tells members from others: the area under the ROC curve, and points of the curve.

The scores of `members` (m,) and `others` (n,) are float64, high for members, without NaN.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.float64]


def resolved(scores: Tensor) -> Tensor:
    """Return the scores to 40 binary digits, which makes ties of those that differ by rounding alone.

    Rows whose logits are the same in another order have equal margins and entropies, and sums of
    different rounding: a relative difference of 1e-12 is no evidence.
    """
    digits, exponent = torch.frexp(scores.double())
    return torch.ldexp((digits * 2**40).round(), exponent - 40)


def auc(members: Tensor, others: Tensor) -> float | None:
    """Return P(s⁺ > s⁻) + ½ P(s⁺ = s⁻), from 0 to 1; ½ is chance. None if a side is empty."""
    if not len(members) or not len(others):
        return None
    below, _ = _placements(members, others)
    return float(below.mean())


def auc_error(members: Tensor, others: Tensor) -> float | None:
    """Return the standard error of the AUC (DeLong, DeLong and Clarke-Pearson 1988).

    None if a side has fewer than two rows.
    """
    if len(members) < 2 or len(others) < 2:
        return None
    below, above = _placements(members, others)
    # se² = S₁₀/m + S₀₁/n, the sample variances of the placements of both sides
    return float(np.sqrt(below.var(ddof=1) / len(members) + above.var(ddof=1) / len(others)))


def _placements(members: Tensor, others: Tensor) -> tuple[Numbers, Numbers]:
    """Return, for each member, the share of others below it (m,), and for each other the share of
    members above it (n,). Ties count ½. The mean of either is the AUC."""
    from scipy.stats import rankdata

    m, n = len(members), len(others)
    members, others = resolved(members), resolved(others)
    pooled = rankdata(torch.cat([members, others]).numpy())
    # A midrank among all rows minus the one on the own side counts the rows of the other side below,
    # ties as ½: sorting does the m·n comparisons.
    below = (pooled[:m] - rankdata(members.numpy())) / n
    above = 1 - (pooled[m:] - rankdata(others.numpy())) / m
    return below, above


@dataclass(frozen=True)
class Rate:
    """A true positive rate, and the ends of its 95 % interval (Clopper and Pearson 1934)."""

    value: float
    low: float
    high: float


def tpr(members: Tensor, others: Tensor, one_in: int) -> Rate | None:
    """Return the largest true positive rate of a rule s ≥ t that takes at most one in `one_in` of the
    others for members: at a false positive rate of 1/`one_in`, which is at most ½.

    The interval holds the threshold fixed. None if there are no members, or fewer than `one_in` others:
    they cannot resolve such a rate.
    """
    from scipy.stats import binomtest

    allowed = len(others) // one_in
    if not len(members) or not allowed:
        return None
    members, others = resolved(members), resolved(others)
    # `allowed` others may reach the threshold: it lies above the next largest of them, and as many
    # members as possible reach it.
    next_largest = others.topk(allowed + 1).values[-1]
    hits = int((members > next_largest).sum())
    interval = binomtest(hits, len(members)).proportion_ci(0.95, method="exact")
    return Rate(hits / len(members), float(interval.low), float(interval.high))
