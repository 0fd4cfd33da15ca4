"""The null of a comparison of populations: half of the retrained models against the other half.

Few models make two equal populations look different, so that a comparison is read beside its null. The
halves have fewer models than the populations that are compared, and look more different for that reason.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from metrics.evidence import Population
from metrics.metric import Score, Scores
from metrics.predictions import Predictions

Models = Sequence[Predictions]


def with_null(
    compare: Callable[[Models, Models], Mapping[str, float]], population: Population
) -> Scores:
    """Return the scores of the unlearned models against the retrained ones, and their nulls.

    `compare` takes models in the place of the unlearned ones, and of the retrained ones. The null of a
    score is `<name>_null`. It compares the first half of the retrained models with the second; of an
    odd number, the last is left out. Each score is a list of one number. What is not defined is left
    out, as everything is if the rows to forget are not predicted.
    """
    half = len(population.retrained) // 2
    compared = {
        "": (population.unlearned, population.retrained),
        "_null": (population.retrained[:half], population.retrained[half : 2 * half]),
    }
    scores: Scores = {}
    for suffix, (one, other) in compared.items():
        if one and other and all(map(_has_margins, (*one, *other))):
            found = compare(one, other).items()
            scores |= {f"{name}{suffix}": [value] for name, value in found if math.isfinite(value)}
    return scores


def _has_margins(model: Predictions) -> bool:
    """Return True if the rows to forget are predicted, and the model has not diverged."""
    return "train_forget" in model.logits and bool(model.margins("train_forget").isfinite().all())


def with_nulls(about: Mapping[str, Score]) -> dict[str, Score]:
    """Return the meanings of scores and of their nulls."""
    nulls = {}
    for name, score in about.items():
        words = name.replace("_", " ").capitalize()
        says = f"{words} of half of the retrained models, taken as unlearned, against the other half."
        title = f"{score.title}, retrained among themselves"
        nulls[f"{name}_null"] = replace(score, says=says, title=title)
    return dict(about) | nulls
