"""Gaps between a model and the retrained one, each from 0 to 1."""

from collections.abc import Callable

from metrics.predictions import Predictions


def accuracy_gap(own: Predictions, reference: Predictions, part: str) -> float:
    """Return |accuracy of the model − accuracy of the retrained one| on a part that has rows."""
    return abs(own.accuracy(part) - reference.accuracy(part))


def share_gap(
    share: Callable[[Predictions], float | None], own: Predictions, reference: Predictions
) -> float | None:
    """Return |share of the model − share of the retrained one|, or None if one is not defined."""
    ours, theirs = share(own), share(reference)
    return None if ours is None or theirs is None else abs(ours - theirs)
