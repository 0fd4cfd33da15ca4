"""The likelihood-ratio attack: was a row among those that a model has forgotten, or never seen?

Shadow models come in pairs with complementary halves of the T rows: models 2i and 2i + 1 of N. For each
row, one of a pair was trained on it (IN), and the other never saw it (OUT). `forgot` (N, T) is true for
IN. Margins φ are (N, T).
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metrics.statistics.roc import auc, tpr

Numbers = NDArray[np.float64]

FLOOR = 1e-12  # of a variance, in squared logits
ONE_IN = {"tpr_1": 100, "tpr_01": 1000}  # rows never seen per false alarm, by the score's name


def likelihood_ratios(targets: ArrayLike, shadows: ArrayLike, forgot: ArrayLike) -> Numbers:
    """Return ln N(φ_j; μ_in, σ_in) − ln N(φ_j; μ_out, σ_out) of each target j and row, (N, T).

    `targets` are the margins of the attacked models, and `shadows` those of the attacker's models, in
    the same order. For target j, the means of a row are those of the other N/2 − 1 pairs. The variances
    are pooled over all rows. N is even and at least 6.
    """
    phi, seen = np.asarray(targets, np.float64), np.asarray(forgot, bool)[0::2]
    first, second = np.asarray(shadows, np.float64)[0::2], np.asarray(shadows, np.float64)[1::2]
    # (N/2, T): the one of each pair that was trained on the row, and the one that was not
    trained, unseen = np.where(seen, first, second), np.where(seen, second, first)
    ratios = np.empty_like(phi)
    for pair in range(len(seen)):
        pair_of_targets = slice(2 * pair, 2 * pair + 2)
        # the whole pair is left out: without the target alone, its side would be one model short
        others = np.delete(trained, pair, 0), np.delete(unseen, pair, 0)
        inside, outside = (_log_density(phi[pair_of_targets], sample) for sample in others)
        ratios[pair_of_targets] = inside - outside
    return ratios


def attack_scores(scores: ArrayLike, forgot: ArrayLike) -> dict[str, list[float]]:
    """Return `auc`, one per target, and the rates of `attack_rates`, a list of one each, as defined."""
    found = {"auc": aucs(scores, forgot)}
    found |= {name: [rate] for name, rate in attack_rates(scores, forgot).items()}
    return {name: values for name, values in found.items() if values}


def aucs(scores: ArrayLike, forgot: ArrayLike) -> list[float]:
    """Return the AUC of each target's scores, forgotten rows (1) against rows never seen (0).

    A target that forgot all rows, or none, has no AUC and is left out.
    """
    targets = zip(np.asarray(scores), np.asarray(forgot), strict=True)
    areas = [auc(*_by_side(*target)) for target in targets]
    return [area for area in areas if area is not None]


def attack_rates(scores: ArrayLike, forgot: ArrayLike) -> dict[str, float]:
    """Return the largest true positive rates of a rule s ≥ t over the scores of all targets.

    `tpr_1` has a false positive rate of at most 0.01, and `tpr_01` of at most 0.001. A rate is absent
    if so few rows were never seen that none of them may be taken for a forgotten one.
    """
    rates = {name: tpr(*_by_side(scores, forgot), one_in) for name, one_in in ONE_IN.items()}
    return {name: rate.value for name, rate in rates.items() if rate}


def mean_forgotten_scores(scores: ArrayLike, forgot: ArrayLike) -> Numbers:
    """Return the mean score of each row over the targets that forgot it, (T,)."""
    seen = np.asarray(forgot, bool)
    means: Numbers = np.asarray(scores, np.float64).mean(0, where=seen)
    return means


def _log_density(phi: Numbers, sample: Numbers) -> Numbers:
    """Return ln N(φ; μ, σ²), (2, T), with μ of the row's sample, (k, T), and σ² pooled over the rows."""
    from scipy.stats import norm

    mean = sample.mean(0)
    # σ² = Σ (φ − μ)² / (T (k − 1)): a row loses one degree of freedom to its mean
    freedom = sample.shape[1] * (len(sample) - 1)
    variance = max(float(((sample - mean) ** 2).sum()) / freedom, FLOOR)
    density: Numbers = norm.logpdf(phi, mean, variance**0.5)
    return density


def _by_side(scores: ArrayLike, forgot: ArrayLike) -> tuple[Tensor, Tensor]:
    """Return the scores of the forgotten rows, and of the rows never seen."""
    values, seen = np.asarray(scores, np.float64), np.asarray(forgot, bool)
    return torch.from_numpy(values[seen]), torch.from_numpy(values[~seen])
