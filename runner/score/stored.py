"""The pieces of evidence of a stored result: what the store holds of its models, and nothing more."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from metrics.evidence import Attacked, Point, Population, Shadows
from metrics.predictions import Predictions, by_part
from runner.results import Result
from runner.roles import ROLE, Role
from runner.score.evidence import Model
from runner.stages.corrupted import alignment_of, attacked_of
from runner.stages.curve import COUNTED, Curve, points_of
from runner.stages.features import features_of
from runner.stages.models import MODEL, weights, weights_of
from runner.stages.predict import stored_predictions
from runner.stages.request import stored_facts, stored_request
from runner.store import Artefact, Store, fingerprint

# Predictions by weights and request, shared by the results of a name.
Shelf = dict[tuple[str, str], Predictions]


@dataclass
class StoredPieces:
    """The pieces of evidence about the models of a result. No model is built and no data set is read.

    `identities` and `shelf` are shared by the results of a name, so that what they share is read once.
    """

    store: Store
    result: Result
    identities: dict[str, Any] = field(default_factory=dict)
    shelf: Shelf = field(default_factory=dict)

    @cached_property
    def models(self) -> dict[Model, str]:
        """The checksum of the weights of every model: the roles, then other retrained ones by seed."""
        found: dict[Model, str] = {ROLE[name]: self.result.weights[name] for name in self.result.scores}
        for seed, each in self.result.references.items():
            found[int(seed)] = each["weights"]
        return found

    def predictions(self, model: Model) -> Predictions | None:
        request = self.request
        if model not in self.models or request is None:
            return None
        key = (self.models[model], request.key)
        if key not in self.shelf:
            made = {
                self._identity(one)["split"]: one
                for one in self._of_stage("predict")
                if self._identity(one)["weights"] == self.models[model]
            }
            found = self._in_parts(made)
            if found is None:
                return None
            self.shelf[key] = found
        return self.shelf[key]

    def costs(self, model: Model) -> Mapping[str, float] | None:
        if isinstance(model, Role):
            return self.result.costs.get(model.name)
        costs: Mapping[str, float] | None = self.result.references.get(str(model), {}).get("costs")
        return costs

    def parameters(self, model: Model) -> Mapping[str, Tensor] | None:
        for made in self._artefacts:
            if (made.path / MODEL).exists() and weights_of(made) == self.models.get(model):
                return weights(made.path)
        return None

    def features(self, model: Model) -> Mapping[str, Tensor] | None:
        made = self._made_of("features", model)
        return None if made is None else features_of(made)

    def curve(self, kind: str, model: Model) -> Sequence[Point] | None:
        made = self._curves(kind).get(self.models.get(model, ""))
        return None if made is None else points_of(made)

    def _curves(self, kind: str) -> Mapping[str, Artefact]:
        """Return the curves of a kind by the weights that they begin at, all made with the same options.

        A result that was scored under several `evaluation.curve_…` has several curves of each model,
        which are no measure of each other. Those of the most models count, then the longest ones.
        """
        each: dict[str, dict[str, Artefact]] = {}
        for made in self._of_stage(kind):
            identity = self._identity(made)
            if identity["weights"] in self.models.values():
                options = fingerprint({**identity, "weights": None})
                each.setdefault(options, {})[identity["weights"]] = made

        def fullness(found: Mapping[str, Artefact]) -> tuple[int, int, int]:
            identity = self._identity(next(iter(found.values())))
            return len(found), identity["batches"], -identity["look"]

        return max(each.values(), key=fullness, default={})

    def batches_per_epoch(self, kind: str) -> int | None:
        made = next(iter(self._of_stage(kind)), None)
        if made is None or self.request is None:
            return None
        rows: int = stored_facts(self.request)[COUNTED[Curve(kind)]]
        batch_size: int = self._identity(made)["recipe"]["batch_size"]
        return math.ceil(rows / batch_size)

    def random(self) -> Predictions | None:
        found = {self._identity(made)["split"]: made for made in self._of_stage("random")}
        return self._in_parts(found)

    def attacked(self, model: Model) -> Attacked | None:
        made = self._made_of("attack", model)
        return None if made is None else attacked_of(made)

    def alignment(self, model: Model) -> Tensor | None:
        made = self._made_of("poison_test", model)
        if made is None or self.request is None:
            return None
        return alignment_of(made, stored_request(self.request))

    def population(self) -> Population | None:
        return None  # a result does not name the models of other seeds

    def shadows(self) -> Shadows | None:
        return None  # nor shadow models

    def _in_parts(self, made: Mapping[str, Artefact]) -> Predictions | None:
        """Return stored predictions by split in parts, or None if those of the test set are absent."""
        if "test" not in made or self.request is None:
            return None
        splits = {split: stored_predictions(artefact) for split, artefact in made.items()}
        found = stored_request(self.request)
        return by_part(splits, {"train": found.rows, "test": found.test}, found.target)

    def _made_of(self, stage: str, model: Model) -> Artefact | None:
        """Return the artefact of a stage that was made of a model's weights."""
        weights = self.models.get(model)
        each = (made for made in self._of_stage(stage) if self._identity(made)["weights"] == weights)
        return next(each, None)

    @cached_property
    def request(self) -> Artefact | None:
        """The artefact of the run's request."""
        requests = self._of_stage("request")
        own = [made for made in requests if self._identity(made)["seed"] == self.result.seed]
        return next(iter(own), None)

    def _of_stage(self, stage: str) -> list[Artefact]:
        return [made for made in self._artefacts if made.stage == stage]

    @cached_property
    def _artefacts(self) -> list[Artefact]:
        """The artefacts of the result that are still in the store."""
        each = (self.store.stored(stage, key) for stage, key in self.result.artefacts)
        return [made for made in each if made is not None]

    def _identity(self, made: Artefact) -> Any:
        if made.key not in self.identities:
            self.identities[made.key] = made.identity
        return self.identities[made.key]
