"""Crossings: the first look at a training at which a probe reaches a value."""

from collections.abc import Callable, Sequence

from data.meanings import CENSORED
from metrics.evidence import Point
from metrics.metric import Score

ROUNDING = 1e-9  # of an accuracy; shares of up to 2,048 rows differ by 1/2048² or more


def first(curve: Sequence[Point], probe: Callable[[Point], float], target: float) -> Point | None:
    """Return the first point whose probe is at least the target, or None if the budget ended before.

    Accuracies are shares of few rows, so that many are the target itself, apart from rounding.
    """
    return next((point for point in curve if probe(point) >= target - ROUNDING), None)


def flag_of(name: str, score: Score) -> dict[str, Score]:
    """Return the meaning of `<name>_censored`, by name, beside that of a score."""
    says, title = f"One if the budget ended before {name} was known.", f"{score.title}: budget ended"
    return {f"{name}{CENSORED}": Score(says, score.better, "flag", title=title, alone=score.alone)}


def durations(
    name: str, units: Sequence[str], reached: Point | None, per_epoch: int
) -> dict[str, float]:
    """Return `<name>_<unit>`, the training until a point, for the units batches, epochs and seconds.

    If the point was not reached, return `<name>_<unit>_censored` = 1 instead. `per_epoch` is the number
    of batches of an epoch.
    """
    if reached is None:
        return {f"{name}_{unit}{CENSORED}": 1.0 for unit in units}
    spent = {
        "batches": float(reached.batches),
        "epochs": reached.batches / per_epoch,
        "seconds": reached.seconds,
    }
    return {f"{name}_{unit}": spent[unit] for unit in units}
