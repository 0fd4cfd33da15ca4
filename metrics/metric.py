"""The interface of a metric: what it needs, what its scores mean, and how it computes them."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, ClassVar

from data.component import Component, plain
from data.contracts import named, returned_scores
from data.errors import ComponentError, UserError
from data.meanings import key_of, meaning, on_rows
from metrics.evidence import OF_A_CELL, Evidence, Needs
from metrics.predictions import PARTS, Predictions

Matrix = list[list[float]]

# The evidence that holds the retrained model of the same seed beside the scored one.
COMPARING = Needs.REFERENCE | Needs.WEIGHTS | Needs.FEATURES | Needs.RELEARN | Needs.COSTS

# A number; a list of numbers, one per target, from a metric of a whole cell; or a matrix.
Scores = dict[str, float | list[float] | Matrix]


class Better(Enum):
    """The direction of a score. `reference` means: the closer to the retrained models', the better."""

    lower = "lower"
    higher = "higher"
    reference = "reference"


@dataclass(frozen=True)
class Score:
    """The meaning of a score.

    `says` is the one sentence of the glossary. `unit` is "share", "nats", "logits", "seconds" and so on.
    `remembers` is the sign of (value − retrained) that means that the model still knows the forgotten
    rows, 0 if neither does. `margin` is the largest difference from the retrained models that counts as
    none; None if no such difference is stated. `null` is the value that retrained models have by the
    definition of a score of a whole cell; None if it is measured, as the score `<name>_null`. `title`
    heads the score in reports and figures; without one, its name does. `alone` is true for a score that
    does not depend on the retrained model of the same seed, although its metric is given that model.
    """

    says: str
    better: Better
    unit: str = "share"
    remembers: int = 0
    margin: float | None = None
    null: float | None = None
    title: str = ""
    alone: bool = False


class Metric(Component):
    """A pure function of the evidence that it declares: a frozen dataclass, whose fields are its
    parameters.

    `undefined` is the reason, for the user, why it may have no score of any model of a run although it
    has its evidence.
    """

    needs: ClassVar[Needs] = Needs.PREDICTIONS
    parts: ClassVar[tuple[str, ...]] = PARTS
    undefined: ClassVar[str] = "it returns none for these models"

    @property
    def option(self) -> str:
        """The name by which `metric=[…]` chooses it: that of its module."""
        return type(self).__module__.split(".")[-1]

    def about(self) -> Mapping[str, Score]:
        """Return the meaning of every score that it may return, by name. `<k>` stands for a number."""
        raise ComponentError("it says of no score what it means: define about(self)")

    def __call__(self, evidence: Evidence) -> Scores:
        """Return scores by name. A score that is not defined is left out."""
        raise NotImplementedError

    def present(self, predictions: Predictions) -> list[str]:
        """Return those of the metric's parts that have rows."""
        return [part for part in self.parts if part in predictions.logits]

    @property
    def paired(self) -> bool:
        """True if its scores compare a model with the retrained one of the same seed, but for those that
        are `alone`."""
        return bool(self.needs & COMPARING)

    @property
    def of_a_cell(self) -> bool:
        """True if it has one value for all seeds of a cell."""
        return bool(self.needs & OF_A_CELL)


def needs_of(metrics: Sequence[Metric]) -> Needs:
    """Return everything that the metrics need."""
    needs = Needs.NOTHING
    for metric in metrics:
        needs |= metric.needs
    return needs


def scored(metrics: Sequence[Metric], evidence: Evidence) -> Scores:
    """Return the scores of all metrics together. A metric that lacks evidence has none, and a score may
    be no finite number (see `numbers` and `not_finite`).

    Raise UserError if a metric returns anything but scores that it says something about.
    """
    found: Scores = {}
    for metric in metrics:
        if evidence.lacks(metric.needs):
            continue
        scores = returned_scores(metric, metric(evidence.only(metric.needs)))
        known = metric.about()
        for name, value in scores.items():
            if meaning(name, known) is None:
                raise UserError(
                    f"{named(metric, '__call__')} returned {name}, and `about` says nothing of it"
                )
            # −0, as the loss of a certain model, becomes 0
            found[name] = value if isinstance(value, list) else value + 0
    return found


def glossary(metrics: Sequence[Metric], names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what the metrics say of the named scores, as JSON-like values by name.

    `metric` is the name of the metric's option. `paired` is true for scores that compare a model with
    the retrained one of its seed.
    """
    found: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        known = metric.about()
        for name in {key for name in names if (key := key_of(name, known)) is not None}:
            said = plain(vars(known[name]))
            alone = said.pop("alone")
            found[name] = {**said, "metric": metric.option, "paired": metric.paired and not alone}
    return found


def for_parts(name: str, score: Score, parts: Sequence[str]) -> dict[str, Score]:
    """Return the meaning of one score on several parts, `<part>_<name>`; `{part}` in what it says stands
    for the part's words, and its title is completed by them."""
    return {
        f"{part}_{name}": replace(
            score,
            says=score.says.format(part=part.replace("_", " ")),
            title=on_rows(score.title, part),
        )
        for part in parts
    }


def of_cells(scores: Scores) -> dict[str, float | list[float]]:
    """Return the scores of a cell that are finite numbers, or lists of numbers."""
    found: dict[str, float | list[float]] = {**numbers(scores)}
    for name, value in scores.items():
        if isinstance(value, list) and not any(isinstance(item, list) for item in value):
            found[name] = [item for item in value if not isinstance(item, list)]
    return found


def numbers(scores: Scores) -> dict[str, float]:
    """Return the scores that are single finite numbers."""
    single = {name: value for name, value in scores.items() if not isinstance(value, list)}
    return {name: value for name, value in single.items() if math.isfinite(value)}


def not_finite(scores: Scores) -> set[str]:
    """Return the names of the scores that are single numbers, and not finite."""
    return {name for name, value in scores.items() if not isinstance(value, list)} - {*numbers(scores)}


def matrices(scores: Scores) -> dict[str, Matrix]:
    """Return the scores that are matrices."""
    found = {}
    for name, value in scores.items():
        if isinstance(value, list) and any(isinstance(row, list) for row in value):
            found[name] = [row for row in value if isinstance(row, list)]
    return found
