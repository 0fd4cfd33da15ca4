"""Verdicts: a model's score against the distribution of retrained models.

The difference D of a score from the retrained models has a standard error and degrees of freedom. If its
90 % interval lies within ± the margin, the model matches them: two one-sided tests at 5 %. If its 95 %
interval leaves out 0, it differs. Anything else is unclear.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import mean, variance

# Fewer retrained models than this give no verdict.
FEWEST = 4

ROUNDING = 1e-12  # of a difference of scores, relative to 1

# The most models of each kind that "would decide" names.
MOST = 200


# Many lines of a table are compared with the same retrained models, at few numbers of seeds.
remembered = lru_cache(maxsize=4096)


@remembered
def quantile(share: float, freedom: float) -> float:
    """Return the quantile of Student's distribution with so many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


@remembered
def moments(values: tuple[float, ...]) -> tuple[float, float]:
    """Return the mean and the variance of at least two values."""
    return mean(values), variance(values)


@dataclass(frozen=True)
class Difference:
    """A score's mean difference from the retrained models: its standard error and degrees of freedom.

    `n` counts the values behind it. `own` is the variance of one value, and `others` that of one
    retrained model; it is None if a value is a seed's difference from retrained models of its own.
    """

    mean: float
    error: float
    freedom: float
    n: int
    own: float = 0.0
    others: float | None = None

    def half_width(self, level: float) -> float:
        """Return half the width of the Student interval of this level, such as 0.95."""
        if self.error == 0:
            return 0.0
        # t_{(1 + level)/2, df} · SE
        return quantile((1 + level) / 2, self.freedom) * self.error


def from_shared(values: Sequence[float], references: Sequence[float]) -> Difference:
    """Return the difference of values from references of the same request.

    With one value, it is taken as one more draw of the retrained models.
    """
    n, r = len(values), len(references)
    centre, spread = moments(tuple(references))
    difference = mean(values) - centre
    if n == 1:
        # SE = s_R · √(1 + 1/R), df = R − 1
        error = math.sqrt(spread * (1 + 1 / r))
        return Difference(difference, error, r - 1, n, own=spread, others=spread)
    return _welch(difference, variance(values), n, spread, r)


def from_one(value: float, references: Sequence[float]) -> Difference:
    """Return the difference of the value of one seed from the retrained models of that seed's own."""
    found = from_shared([value], references)
    return replace(found, own=found.error**2, others=None)


def _welch(difference: float, own: float, n: int, others: float, r: int) -> Difference:
    """Return the difference of `n` values of variance `own` from `r` references of variance `others`."""
    # SE² = s_u²/n + s_R²/R
    first, second = own / n, others / r
    total = first + second
    # df = SE⁴ / (s_u⁴/(n²(n − 1)) + s_R⁴/(R²(R − 1)))
    freedom = total**2 / (first**2 / (n - 1) + second**2 / (r - 1)) if total else math.inf
    return Difference(difference, math.sqrt(total), freedom, n, own, others)


def from_pairs(differences: Sequence[float]) -> Difference:
    """Return the mean of at least two differences, one per seed, each from retrained models of its
    own."""
    return _paired(mean(differences), variance(differences), len(differences))


def _paired(difference: float, own: float, n: int) -> Difference:
    # SE = s_d/√n, df = n − 1
    return Difference(difference, math.sqrt(own / n), n - 1, n, own)


def verdict(difference: Difference, margin: float | None, remembers: int, better: str) -> str:
    """Return the verdict on a difference.

    It is "matches", "under-forgets", "over-forgets", "damaged", "above", "differs" or "unclear".

    `remembers` is the sign of a difference that means that the model still knows the forgotten rows.
    If it is 0, `better` ("higher" or "lower") tells "damaged" from "above".
    """
    d = difference.mean
    # a share of 0.52 is 0.02 from one of 0.5, apart from rounding
    if margin is not None and abs(d) + difference.half_width(0.90) <= margin + ROUNDING:
        return "matches"
    if abs(d) <= difference.half_width(0.95):
        return "unclear"
    if remembers:
        return "under-forgets" if d * remembers > 0 else "over-forgets"
    if better == "reference":
        return "differs"
    return "above" if (d > 0) == (better == "higher") else "damaged"


def would_decide(difference: Difference, margin: float | None) -> int | None:
    """Return the number of seeds, and of retrained models, at which an unclear difference would be
    decided if it and the spread stayed as they are; None if more than 200 are needed."""
    d, own, others = difference.mean, difference.own, difference.others
    for n in range(difference.n + 1, MOST + 1):
        likely = _paired(d, own, n) if others is None else _welch(d, own, n, others, n)
        if verdict(likely, margin, 0, "reference") != "unclear":
            return n
    return None


def false_flags(tested: int) -> float:
    """Return the number of verdicts but "matches" to expect if all tested models were retrained ones."""
    return 0.05 * tested
