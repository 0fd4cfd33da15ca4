"""The pieces of evidence of a run that is at work: the stages make what is absent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from data.requests import Request
from methods.base import Method
from metrics.evidence import Attacked, Point, Population, Shadows
from metrics.predictions import Predictions
from runner import stages
from runner.plan import Plan
from runner.plan.share import share_of
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
            made, made_by = self.models[model], self._made_by(model)
            self._known[model] = stages.predictions(self.ws, self.request, made, made_by)
        return self._known[model]

    def costs(self, model: Model) -> Mapping[str, float] | None:
        return self._of(model, stages.cost_of)

    def parameters(self, model: Model) -> Mapping[str, Tensor] | None:
        return self._of(model, lambda made: weights(made.path))

    def features(self, model: Model) -> Mapping[str, Tensor] | None:
        made_by = self._made_by(model)
        return self._of(model, lambda made: stages.features(self.ws, self.request, made, made_by))

    def curve(self, kind: str, model: Model) -> Sequence[Point] | None:
        made_by, training = self._made_by(model), stages.Curve(kind)
        return self._of(model, lambda made: stages.curve(self.ws, self.request, training, made, made_by))

    def batches_per_epoch(self, kind: str) -> int:
        return stages.batches_per_epoch(self.ws, stages.Curve(kind))

    def random(self) -> Predictions:
        return stages.random_predictions(self.ws, self.request)

    def attacked(self, model: Model) -> Attacked | None:
        made_by = self._made_by(model)
        return self._of(model, lambda made: stages.attacked(self.ws, made, made_by))

    def alignment(self, model: Model) -> Tensor | None:
        made_by = self._made_by(model)
        return self._of(model, lambda made: stages.alignment(self.ws, self.request, made, made_by))

    def population(self) -> Population | None:
        if self.ws.plan.reference is None:
            return None
        request = self._cell
        seeds = range(self.ws.plan.evaluation.references)
        unlearned = [stages.unlearned_member(self.ws, request, seed) for seed in seeds]
        retrained = [stages.retrained_member(self.ws, request, seed) for seed in seeds]
        return Population(
            [self._of_cell(made, self.ws.plan.method) for made in unlearned],
            [self._of_cell(made, self.ws.plan.reference) for made in retrained],
        )

    def shadows(self) -> Shadows | None:
        request, plan = self._cell, self.ws.plan
        each = stages.shadows(self.ws, request, range(plan.evaluation.shadows))
        if not each:
            return None
        train = self.ws.dataset.train.rows.cpu()
        rows = train[torch.isin(train, request.rows)]  # in the order of predictions
        halves = [share_of(request.rows, number).forgotten for number in range(len(each))]
        return Shadows(
            [self._of_cell(one.original, None) for one in each],
            [self._of_cell(one.unlearned, plan.method) for one in each],
            torch.stack([torch.isin(rows, half) for half in halves]),
            rows,
        )

    @cached_property
    def _cell(self) -> Request:
        return stages.cell_request(self.ws, self.request)

    def _of_cell(self, made: Artefact, made_by: Method | None) -> Predictions:
        return stages.predictions(self.ws, self._cell, made, made_by)

    def _of(self, model: Model, read: Callable[[Artefact], Piece]) -> Piece | None:
        return read(self.models[model]) if model in self.models else None

    def _made_by(self, model: Model) -> Method | None:
        return method_of(self.ws.plan, model)


def method_of(plan: Plan, model: Model) -> Method | None:
    """Return the method that made a model and knows its architecture, None for the original."""
    if model is ORIGINAL:
        return None
    retrained = model is REFERENCE or not isinstance(model, Role)
    return plan.reference if retrained else plan.method
