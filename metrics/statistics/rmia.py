"""The robust membership inference attack of Zarifzadeh, Liu and Shokri 2024 (arXiv 2312.03262).

A row is a member if the scored model knows it better, relative to reference models, than it knows other
rows of the population. Probabilities are those of a row's own label.
"""

import torch
from torch import Tensor

from metrics.statistics.roc import resolved


def scores(
    target_x: Tensor, refs_x: Tensor, target_z: Tensor, refs_z: Tensor, a: float, gamma: float
) -> Tensor:
    """Return the offline score of every row x, (n,) float64: the share of z with ρ(x)/ρ(z) > γ.

    `target_x` (n,) and `target_z` (k,) are probabilities of the scored model, `refs_x` (R, n) and
    `refs_z` (R, k) those of reference models that saw neither. `a` is from 0 to below 1, `gamma`
    positive.
    """
    ratios_x = target_x.double() / expected(refs_x.double(), a)
    ratios_z = target_z.double() / expected(refs_z.double(), a)
    return shares(ratios_x, ratios_z, gamma)


def expected(out: Tensor, a: float) -> Tensor:
    """Return p̂ = ½[(1 + a)·mean_j p_j + 1 − a], (n,), of models (R, n) that never saw the rows.

    Half of all models see a row: p̂ = ½(p_in + p_out). The paper takes p_in for a·p_out + 1 − a: models
    that saw the row know it no better if a is 1, and for certain if a is 0.
    """
    return ((1 + a) * out.mean(0) + 1 - a) / 2


def shares(ratios_x: Tensor, ratios_z: Tensor, gamma: float) -> Tensor:
    """Return, for every ratio of `ratios_x` (n,), the share of `ratios_z` (k,) with ρ(x)/ρ(z) > γ.

    It is NaN where a ratio is.
    """
    # γ·ρ(z) < ρ(x): a place in the sorted γ·ρ(z) counts those below, without a matrix n × k
    ordered = resolved(gamma * ratios_z).sort().values
    below = torch.searchsorted(ordered, resolved(ratios_x)).double()
    unknown = ratios_x.isnan() | ratios_z.isnan().any()
    return below.masked_fill(unknown, torch.nan) / len(ratios_z)
