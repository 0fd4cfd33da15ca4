"""Evidence: the pieces that metrics ask for, gathered from the models of one run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from data.meanings import meaning
from metrics.evidence import (
    Attacked,
    Costs,
    Curves,
    Evidence,
    Features,
    Needs,
    Point,
    Population,
    Shadows,
    Weights,
)
from metrics.metric import Metric, Scores, needs_of, not_finite, scored
from metrics.predictions import Predictions
from runner.roles import ORIGINAL, REFERENCE, UNLEARNED, Role

# A model of a run: one of its roles, or another retrained model by its seed.
Model = Role | int


class Pieces(Protocol):
    """The pieces of evidence about the models of one run. A piece that is absent is None."""

    @property
    def models(self) -> Iterable[Model]:
        """The models to score: the run's roles in the order of a table, then other retrained ones."""

    def predictions(self, model: Model) -> Predictions | None:
        """Return the predictions of a model."""

    def costs(self, model: Model) -> Mapping[str, float] | None:
        """Return the costs of making a model."""

    def parameters(self, model: Model) -> Mapping[str, Tensor] | None:
        """Return the parameters of a model, without its buffers."""

    def features(self, model: Model) -> Mapping[str, Tensor] | None:
        """Return the features of a model by part."""

    def curve(self, kind: str, model: Model) -> Sequence[Point] | None:
        """Return the looks at a training (`relearn` or `recover`) that begins at a model."""

    def batches_per_epoch(self, kind: str) -> int | None:
        """Return the batches of one pass of that training."""

    def random(self) -> Predictions | None:
        """Return the predictions of a model with random weights."""

    def attacked(self, model: Model) -> Attacked | None:
        """Return the answers of a model to the attack of a scenario."""

    def alignment(self, model: Model) -> Tensor | None:
        """Return the alignments of a model with the noise in the forgotten rows."""

    def population(self) -> Population | None:
        """Return the models of the run's cell."""

    def shadows(self) -> Shadows | None:
        """Return the shadow models of the run's cell."""


@dataclass(frozen=True)
class ScoredModels:
    """The scores of one run: of its roles, of other retrained models by seed, and of its cell."""

    roles: Mapping[Role, Scores]
    references: Mapping[int, Scores]
    cell: Scores

    @property
    def not_finite(self) -> dict[str, list[str]]:
        """The names of the scores that are no finite number, by the name of the role whose line of a
        table they miss in: all retrained models share one, and a cell has that of its method."""
        found = {role.name: not_finite(scores) for role, scores in self.roles.items()}
        for scores in self.references.values():
            found.setdefault(REFERENCE.name, set()).update(not_finite(scores))
        found.setdefault(UNLEARNED.name, set()).update(not_finite(self.cell))
        return {role: sorted(names) for role, names in found.items() if names}


def score_models(metrics: Sequence[Metric], pieces: Pieces) -> ScoredModels:
    """Return the scores of all metrics for every model of a run."""
    of_model = [metric for metric in metrics if not metric.of_a_cell]
    of_cell = [metric for metric in metrics if metric.of_a_cell]
    found = {model: _scores(of_model, pieces, model) for model in pieces.models}
    return ScoredModels(
        {model: scores for model, scores in found.items() if isinstance(model, Role)},
        {model: scores for model, scores in found.items() if not isinstance(model, Role)},
        _scores(of_cell, pieces, UNLEARNED),
    )


def _scores(metrics: Sequence[Metric], pieces: Pieces, model: Model) -> Scores:
    return scored(metrics, evidence_of(pieces, model, needs_of(metrics)))


def evidence_of(pieces: Pieces, model: Model, needs: Needs) -> Evidence:
    """Return the evidence about a model for these needs, as far as there is any."""
    found = {need: GATHERED[need](pieces, model) for need in needs}
    return Evidence({need: piece for need, piece in found.items() if piece is not None})


def without_scores(metrics: Sequence[Metric], pieces: Pieces, found: ScoredModels) -> dict[str, str]:
    """Return, by the names of their options, the reasons of metrics that had evidence and no score.

    A metric whose training rows were not predicted has another reason than its own, and so has one that
    compares with a retrained model in a run without one.
    """
    names = {name for scores in (*found.roles.values(), found.cell) for name in scores}
    predictions = pieces.predictions(UNLEARNED)
    there = set() if predictions is None else set(predictions.logits)
    return {
        metric.option: metric.undefined
        for metric in metrics
        if all(meaning(name, metric.about()) is None for name in names)
        and not (metric.paired and REFERENCE not in found.roles)
        and {part for part in metric.parts if part.startswith("train")} <= there
        and not evidence_of(pieces, UNLEARNED, metric.needs).lacks(metric.needs)
    }


def _references(pieces: Pieces, model: Model) -> Sequence[Predictions] | None:
    """Return the predictions of all retrained models but the given one, or None if there are none."""
    others = [other for other in pieces.models if other is REFERENCE or not isinstance(other, Role)]
    each = [pieces.predictions(other) for other in others if other != model]
    return [predictions for predictions in each if predictions is not None] or None


def _weights(pieces: Pieces, model: Model) -> Weights | None:
    own, original = pieces.parameters(model), pieces.parameters(ORIGINAL)
    if own is None or original is None:
        return None
    return Weights(own, original, pieces.parameters(REFERENCE))


def _features(pieces: Pieces, model: Model) -> Features | None:
    own, original = pieces.features(model), pieces.features(ORIGINAL)
    if own is None or original is None:
        return None
    return Features(own, original, pieces.features(REFERENCE))


def _curves(kind: str) -> Callable[[Pieces, Model], Curves | None]:
    def gather(pieces: Pieces, model: Model) -> Curves | None:
        own, original = pieces.curve(kind, model), pieces.curve(kind, ORIGINAL)
        per_epoch = pieces.batches_per_epoch(kind)
        if not own or not original or per_epoch is None:
            return None
        return Curves(own, pieces.curve(kind, REFERENCE), original[0], per_epoch)

    return gather


def _costs(pieces: Pieces, model: Model) -> Costs | None:
    own = pieces.costs(model)
    return None if own is None else Costs(own, pieces.costs(REFERENCE))


# The function that gathers each kind of evidence about a model.
GATHERED: Mapping[Needs, Callable[[Pieces, Model], Any]] = {
    Needs.PREDICTIONS: lambda pieces, model: pieces.predictions(model),
    Needs.REFERENCE: lambda pieces, model: pieces.predictions(REFERENCE),
    Needs.REFERENCES: _references,
    Needs.ORIGINAL: lambda pieces, model: pieces.predictions(ORIGINAL),
    Needs.RANDOM: lambda pieces, model: pieces.random(),
    Needs.WEIGHTS: _weights,
    Needs.FEATURES: _features,
    Needs.RELEARN: _curves("relearn"),
    Needs.RECOVER: _curves("recover"),
    Needs.COSTS: _costs,
    Needs.ATTACK: lambda pieces, model: pieces.attacked(model),
    Needs.ALIGNMENT: lambda pieces, model: pieces.alignment(model),
    Needs.POPULATION: lambda pieces, model: pieces.population(),
    Needs.SHADOWS: lambda pieces, model: pieces.shadows(),
}
