"""Cells of a table: statistics over the seeds of a line."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from data.meanings import ROWS, meaning
from runner.report.frame import tidy
from runner.report.verdicts import quantile
from runner.results import Line, Result

if TYPE_CHECKING:
    import pandas as pd


class Estimate(NamedTuple):
    """A mean over `n` seeds, and half the width of its 95 % interval (NaN for one seed)."""

    mean: float
    half_width: float
    n: float


# What metrics, or results, say of their scores by name.
About = Mapping[str, Mapping[str, Any]]

# The estimate of a number that no run of a line has.
ABSENT = Estimate(float("nan"), float("nan"), 0)

# By line and metric.
Estimates = Mapping[tuple[Line, str], Estimate]


# The units of scores that count something.
COUNTED = {"batches", "epochs", "flag", "rows"}


def counts(results: list[Result], about: About) -> set[str]:
    """Return the names of the numbers that are counts, and print without decimals.

    They are the scores of such a unit, and the costs and logged values that are whole in every run and
    measure no time.
    """
    whole: dict[str, bool] = {}
    for result in results:
        for numbers in (*result.scores.values(), *result.costs.values()):
            for name, value in numbers.items():
                whole[name] = whole.get(name, True) and float(value).is_integer()
    return {name for name in whole if _counts(name, meaning(name, about), whole[name])}


def _counts(name: str, said: Mapping[str, Any] | None, whole: bool) -> bool:
    """Return whether a number counts, by what is said of it, or by its values, which may be `whole`."""
    if name.startswith(tuple(f"{part}_" for part in ROWS)) or name.endswith("seconds"):
        return False
    return whole if said is None else said["unit"] in COUNTED


def statistics(results: list[Result]) -> "pd.DataFrame":
    """Return the statistics over seeds, indexed by setting, cell and metric: `value`, `half_width` and
    `n` of the number itself, and `gap`, `gap_half_width` and `gap_n` of its gap to the reference."""
    groups = tidy(results).groupby(["setting", "cell", "metric"], sort=False)
    value = groups["value"].agg(["mean", "std", "count"])
    gap = groups["gap"].agg(["mean", "std", "count"])
    value.insert(1, "half_width", half_width(value))
    gap.insert(1, "half_width", half_width(gap))
    value = value.drop(columns="std").rename(columns={"mean": "value", "count": "n"})
    gap = gap.drop(columns="std")
    gap.columns = ["gap", "gap_half_width", "gap_n"]
    return value.join(gap)


def half_width(groups: "pd.DataFrame") -> Any:
    """Return half the width of the 95 % Student interval of each mean.

    `groups` has the columns `std` and `count`. The result is NaN for a single value.
    """
    import numpy as np
    from scipy.special import stdtrit

    n = groups["count"].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        # t₀.₉₇₅,ₙ₋₁ · s / √n
        return stdtrit(n - 1, 0.975) * groups["std"].to_numpy() / np.sqrt(n)


def half_width_of(values: Sequence[float]) -> float:
    """Return half the width of the 95 % Student interval of the mean of at least two values."""
    n = len(values)
    return quantile(0.975, n - 1) * stdev(values) / math.sqrt(n)


def least_of(score: str, values: Iterable[float]) -> float:
    """Return what no interval of a score with these values reaches below: 0 for a loss without negative
    values, which a cross-entropy never has, and −∞ for others."""
    is_loss = re.fullmatch(r"(\w+_)?loss", score) is not None
    return 0.0 if is_loss and min(values) >= 0 else -math.inf


def interval(estimate: Estimate, share: bool, least: float = -math.inf) -> tuple[float, float]:
    """Return the ends of an estimate's 95 % interval, NaN if it has none; those of a share lie inside
    [0, 1], and the others are cut at `least`.

    The Student interval of a share p is that of logit(p) = ln(p/(1 − p)), whose half-width is, to first
    order, the one of p divided by p(1 − p), brought back to p. It leaves [0, 1] for no p.
    """
    p, half, _ = estimate
    if not (share and 0 < p < 1):
        return max(p - half, least), p + half
    # logit(p) ± h / (p(1 − p)), and expit(x) = ½(1 + tanh(x/2)), which does not overflow
    logit, wide = math.log(p / (1 - p)), half / (p * (1 - p))
    low, high = ((1 + math.tanh((logit + end) / 2)) / 2 for end in (-wide, wide))
    # it holds the mean, whatever the way there and back rounds to
    return min(low, p), max(high, p)


def values(cells: "pd.DataFrame") -> Estimates:
    """Return the estimates of the numbers themselves."""
    return _estimates(cells[["value", "half_width", "n"]])


def gaps(cells: "pd.DataFrame") -> Estimates:
    """Return the estimates of the gaps to the reference."""
    return _estimates(cells[["gap", "gap_half_width", "gap_n"]])


def _estimates(columns: "pd.DataFrame") -> Estimates:
    entries = zip(columns.index, columns.to_numpy(), strict=True)
    return {(Line(setting, cell), metric): Estimate(*own) for (setting, cell, metric), own in entries}
