"""Comparisons of two populations of models, row by row.

A population is given as the margins φ of its models on the same T rows, (models, T). The functions
take those of N unlearned models, (N, T), and of R retrained ones, (R, T), and return one number per row,
(T,). N and R may differ.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.predictions import Predictions

Numbers = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS = 20  # of KLOM's histograms
LARGEST = 100.0  # margins beyond ±100 count as ±100
EMPTY = 1e-5  # the share that KLOM gives an empty bin

DELTA = 1e-5
CAP = 50.0  # ε where the populations are told apart without an error
PEAKED = 0.01  # the ratio of two ranges below which ε is CAP
BUCKET = 0.5  # the step of ε that halves the quality

PER_UNIT = 100  # thresholds per logit of the challenge's grid
BUFFER = 2.0  # logits by which its intervals may differ from the narrower range


def margins_of(models: Sequence[Predictions]) -> Numbers:
    """Return φ of the forgotten training rows, (models, T) float64."""
    return np.stack([model.margins("train_forget").numpy() for model in models])


def margin_distances(unlearned: ArrayLike, retrained: ArrayLike) -> Numbers:
    """Return the 1-Wasserstein distance of the two samples of each row, ∫ |F_u − F_r|, in logits.

    With N = R it is the mean distance of the sorted margins.
    """
    from scipy.stats import wasserstein_distance

    u, r = _samples(unlearned, retrained)
    return np.array([wasserstein_distance(*rows) for rows in zip(u.T, r.T, strict=True)])


def kl_divergences(unlearned: ArrayLike, retrained: ArrayLike) -> Numbers:
    """Return KL(hist φ_r ‖ hist φ_u) of each row, from 0 to ln 1e5 = 11.5 nats.

    Both histograms have 20 bins on the joint range, of which the last is closed. An empty bin of the
    unlearned models counts as 1e-5.
    """
    from scipy.special import rel_entr

    u, r = (np.clip(sample, -LARGEST, LARGEST) for sample in _samples(unlearned, retrained))
    edges = _edges(u, r)
    # nothing lies above the last edge, so that the last bin holds the maximum
    edges[-1] = np.inf
    p, q = _counts(r, edges) / len(r), _counts(u, edges) / len(u)
    # Σ p ln(p/q) over the bins, where p = 0 adds nothing
    divergences: Numbers = rel_entr(p, np.where(q > 0, q, EMPTY)).sum(0)
    return divergences


def official_kl_divergences(unlearned: ArrayLike, retrained: ArrayLike) -> Numbers:
    """Return KL(hist φ_r ‖ hist φ_u) of each row in nats, as data-unlearning-bench computes it.

    Its last bin is open, so that the largest margin of a row is in no bin. Shares that are raised to
    1e-5 are divided by the new sum. A row is NaN if no retrained model is in a bin.
    """
    from scipy.stats import entropy

    u, r = (np.clip(sample, -LARGEST, LARGEST) for sample in _samples(unlearned, retrained))
    edges = _edges(u, r)
    # equal margins everywhere: bins of a unit range
    flat = edges[0] == edges[-1]
    edges[:, flat] += np.linspace(0, 1, BINS + 1)[:, None]
    with np.errstate(invalid="ignore"):  # 0/0: no model in a bin
        p, q = (counts / counts.sum(0) for counts in (_counts(r, edges), _counts(u, edges)))
        q = np.nan_to_num(q)
        divergences: Numbers = entropy(p, np.where(p > 0, np.maximum(q, EMPTY), q))
    return divergences


def epsilons(unlearned: ArrayLike, retrained: ArrayLike) -> Numbers:
    """Return ε of each row, from 0 to 50: the largest lower bound that a threshold's errors set.

    The sample with the larger median is called positive; of equal ones, the unlearned. A rule calls a
    model positive if φ ≥ t, for t at every margin of the row. ε is 50 where the range of one sample is
    under 1 % of the other's, or where the narrower range holds no margin of the other sample.
    """
    u, r = _samples(unlearned, retrained)
    retrained_positive = np.median(r, 0) > np.median(u, 0)
    found = np.zeros(u.shape[1])
    for threshold in np.concatenate([u, r]):
        below_u, below_r = (u < threshold).mean(0), (r < threshold).mean(0)
        # FPR = P(negative ≥ t), FNR = P(positive < t)
        fpr = 1 - np.where(retrained_positive, below_u, below_r)
        fnr = np.where(retrained_positive, below_r, below_u)
        found = np.maximum(found, _bounds(fpr, fnr))
    return np.where(_peaked(u, r) | _apart(u, r), CAP, found)


def official_epsilons(unlearned: ArrayLike, retrained: ArrayLike) -> Numbers:
    """Return ε of each row, from 0 to 50, over the rules of the challenge's published code.

    Its margins are ln(p_y + 1e-45) − ln(1 − p_y + 1e-45), which end at ±103.6. Its rules are thresholds
    on a grid, and intervals about the narrower range. A row takes about 6 ms.
    """
    from scipy.special import expit

    u, r = (
        np.log(expit(phi) + 1e-45) - np.log(expit(-phi) + 1e-45)
        for phi in _samples(unlearned, retrained)
    )
    found = np.full(u.shape[1], CAP)
    for row in np.flatnonzero(~_peaked(u, r)):
        found[row] = max(_of_thresholds(u[:, row], r[:, row]), _of_intervals(u[:, row], r[:, row]))
    return found


def qualities(found: ArrayLike, models: int) -> Numbers:
    """Return H(ε) of each row, from 0 to 1, for populations of `models` ≥ 3 models.

    H(ε) = 2^−b in bucket b = ⌊ε / ½⌋. It is 0 where the bucket ends above ⌈ln(models − 1)⌉, the largest
    ε that so few models can show.
    """
    buckets = np.floor(np.asarray(found, float) / BUCKET)
    known = (buckets + 1) * BUCKET <= np.ceil(np.log(models - 1))
    marks: Numbers = np.where(known, np.exp2(-buckets), 0.0)
    return marks


def _samples(unlearned: ArrayLike, retrained: ArrayLike) -> tuple[Numbers, Numbers]:
    return np.asarray(unlearned, np.float64), np.asarray(retrained, np.float64)


def _edges(u: Numbers, r: Numbers) -> Numbers:
    """Return the edges of equal bins on the joint range of each row, (bins + 1, T)."""
    low, high = np.minimum(u.min(0), r.min(0)), np.maximum(u.max(0), r.max(0))
    return np.linspace(low, high, BINS + 1)


def _counts(sample: Numbers, edges: Numbers) -> Numbers:
    """Return the number of models from each edge up to below the next, (bins, T)."""
    at_least = np.stack([(sample >= edge).sum(0, dtype=np.float64) for edge in edges])
    counts: Numbers = at_least[:-1] - at_least[1:]
    return counts


def _apart(u: Numbers, r: Numbers) -> Bools:
    """Return True for each row in which the narrower range holds no margin of the other sample."""
    narrow_u = np.ptp(u, 0) < np.ptp(r, 0)
    return ~np.where(narrow_u, _holds(u, r), _holds(r, u))


def _holds(sample: Numbers, other: Numbers) -> Bools:
    """Return True for each row in which the range of the sample holds a margin of the other one."""
    return np.asarray(((other >= sample.min(0)) & (other <= sample.max(0))).any(0))


def _bounds(fpr: Numbers, fnr: Numbers) -> Numbers:
    """Return the lower bounds of ε that rules with these error rates set, of the same shape, at least 0.

    For (ε, δ)-indistinguishable populations, every rule has FPR + e^ε · FNR ≥ 1 − δ and FNR + e^ε · FPR
    ≥ 1 − δ. Rates that are both 0 give 50. A single rate of 0 means too few models, and gives 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a logarithm of a rate of 0 or of 1
        first = np.log(1 - DELTA - fpr) - np.log(fnr)
        second = np.log(1 - DELTA - fnr) - np.log(fpr)
    # fmax passes over the NaN of a rate of 1
    largest = np.fmax(np.fmax(first, second), 0)
    return np.select([(fpr + fnr) == 0, fpr * fnr == 0], [CAP, 0.0], largest)


def _peaked(unlearned: Numbers, retrained: Numbers) -> Bools:
    """Return True for each row in which the range of one sample is under 1 % of the other's."""
    widths = np.ptp(unlearned, 0), np.ptp(retrained, 0)
    return np.asarray(np.minimum(*widths) < PEAKED * np.maximum(*widths))


def _of_thresholds(u: Numbers, r: Numbers) -> float:
    """Return the largest ε of a row's samples, (N,) and (R,), at ⌈100 · range⌉ equal thresholds."""
    positive, negative = (r, u) if np.median(r) > np.median(u) else (u, r)
    both = np.concatenate([u, r])
    count = math.ceil(np.ptp(both) * PER_UNIT)
    thresholds = np.linspace(both.min(), both.max(), count)[:, None]
    fpr, fnr = (negative >= thresholds).mean(1), (positive < thresholds).mean(1)
    return float(_bounds(fpr, fnr).max(initial=0))


def _of_intervals(u: Numbers, r: Numbers) -> float:
    """Return the largest ε of a row's samples, (N,) and (R,), over intervals about the narrower range.

    A model in the interval counts as one of the narrower sample.
    """
    positive, negative = (r, u) if np.ptp(u) >= np.ptp(r) else (u, r)
    width = np.ptp(positive)
    # right ends within ±2 of the maximum, widths within ±2 of the range
    lowest, highest = positive.min() + width - BUFFER, positive.max() + BUFFER
    right = np.linspace(lowest, highest, math.ceil((highest - lowest) * PER_UNIT))
    starts = right - width
    left = np.linspace(starts - BUFFER, starts + BUFFER, math.ceil(2 * BUFFER * PER_UNIT), axis=1)
    within_n, within_p = _counts_within(negative, left, right), _counts_within(positive, left, right)
    # few of the pairs of counts are different ones
    size = len(positive) + 1
    pairs = np.flatnonzero(np.bincount((within_n * size + within_p).ravel()))
    fpr, fnr = pairs // size / len(negative), 1 - pairs % size / len(positive)
    return float(_bounds(fpr, fnr).max())


def _counts_within(sample: Numbers, left: Numbers, right: Numbers) -> NDArray[np.int64]:
    """Return the number of models in each interval, (rights, lefts), for `right` (rights,) and `left`
    (rights, lefts)."""
    ordered = np.sort(sample)
    # up to the right end, less those below the left end; 0 if the ends have changed places
    up_to = np.searchsorted(ordered, right, "right")[:, None]
    counts: NDArray[np.int64] = np.maximum(up_to - np.searchsorted(ordered, left), 0)
    return counts
