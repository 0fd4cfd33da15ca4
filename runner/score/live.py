"""The pieces of evidence of a run that is at work: the stages make what is absent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from data.requests import Request
from methods.base import Method
from metrics.evidence import Point, Population, Shadows
from metrics.predictions import Predictions
from runner import stages
from runner.roles import ORIGINAL, REFERENCE, Role
from runner.score.evidence import Model
from runner.stages.models import weights
from runner.stages.workspace import Workspace
from runner.store import Artefact

Piece = TypeVar("Piece")


@dataclass
class LivePieces:
    """The pieces of evidence about the models of a run, by stages of its workspace.

    `models` holds the run's models by role, then other retrained models by seed.
    """

    ws: Workspace
    request: Request
    models: dict[Model, Artefact]
    _known: dict[Model, Predictions] = field(default_factory=dict)

    @property
    def by_role(self) -> dict[Role, Artefact]:
        """The run's own models, without the other retrained ones."""
        return {model: made for model, made in self.models.items() if isinstance(model, Role)}

    def predictions(self, model: Model) -> Predictions | None:
        return self.predicted(model) if model in self.models else None

    def predicted(self, model: Model) -> Predictions:
        """Return the predictions of one of the models."""
        if model not in self._known:
            made, maker = self.models[model], self._maker(model)
            self._known[model] = stages.predictions(self.ws, self.request, made, maker)
        return self._known[model]

    def costs(self, model: Model) -> Mapping[str, float] | None:
        return self._of(model, stages.cost_of)

    def parameters(self, model: Model) -> Mapping[str, Tensor] | None:
        return self._of(model, lambda made: weights(made.path))

    def features(self, model: Model) -> Mapping[str, Tensor] | None:
        raise NotImplementedError

    def curve(self, kind: str, model: Model) -> Sequence[Point] | None:
        raise NotImplementedError

    def batches_per_epoch(self, kind: str) -> int | None:
        raise NotImplementedError

    def random(self) -> Predictions | None:
        raise NotImplementedError

    def population(self) -> Population | None:
        raise NotImplementedError

    def shadows(self) -> Shadows | None:
        raise NotImplementedError

    def _of(self, model: Model, read: Callable[[Artefact], Piece]) -> Piece | None:
        return read(self.models[model]) if model in self.models else None

    def _maker(self, model: Model) -> Method | None:
        """Return the method that made a model, None for the original: it knows the architecture."""
        if model is ORIGINAL:
            return None
        retrained = model is REFERENCE or not isinstance(model, Role)
        return self.ws.plan.reference if retrained else self.ws.plan.method
