"""The pieces of evidence of a stored result: what the store holds of its models, and nothing more."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from metrics.evidence import Attacked, Point, Population, Shadows
from metrics.predictions import Predictions, by_part
from runner.results import Result
from runner.roles import ROLE, ROLES, Role
from runner.score.evidence import Model
from runner.stages.corrupted import alignment_of, attacked_of
from runner.stages.curve import COUNTED, Curve, points_of
from runner.stages.features import features_of
from runner.stages.models import weights, weights_of
from runner.stages.predict import stored_predictions
from runner.stages.request import stored_facts, stored_request
from runner.store import Artefact, Store, fingerprint

# Predictions by the keys of the artefacts that hold them, shared by the results of a name.
Shelf = dict[tuple[str, ...], Predictions]

# The stages whose artefacts hold a model.
OF_MODELS = {role.stage for role in ROLES}


@dataclass
class StoredPieces:
    """The pieces of evidence about the models of a result. No model is built and no data set is read.

    A damaged artefact counts as absent. `identities` and `shelf` are shared by the results of a name, so
    that what they share is read once.
    """

    store: Store
    result: Result
    identities: dict[str, Any] = field(default_factory=dict)
    shelf: Shelf = field(default_factory=dict)
    _found: dict[str, list[Artefact]] = field(default_factory=dict)

    @cached_property
    def models(self) -> dict[Model, str]:
        """The checksum of the weights of every model: the roles, then other retrained ones by seed."""
        found: dict[Model, str] = {ROLE[name]: self.result.weights[name] for name in self.result.scores}
        for seed, each in self.result.references.items():
            found[int(seed)] = each["weights"]
        return found

    def predictions(self, model: Model) -> Predictions | None:
        if self.request is None:
            return None
        made = self._of("predict", model)
        key = (self.request.key, *(each.key for each in made))
        if key not in self.shelf:
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
        made = next((each for stage in OF_MODELS for each in self._of(stage, model)), None)
        return None if made is None else weights(made.path)

    def features(self, model: Model) -> Mapping[str, Tensor] | None:
        made = next(iter(self._of("features", model)), None)
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
        return self._in_parts(self._of_stage("random"))

    def attacked(self, model: Model) -> Attacked | None:
        made = next(iter(self._of("attack", model)), None)
        return None if made is None else attacked_of(made)

    def alignment(self, model: Model) -> Tensor | None:
        made = next(iter(self._of("poison_test", model)), None)
        if made is None or self.request is None:
            return None
        return alignment_of(made, stored_request(self.request))

    def population(self) -> Population | None:
        return None  # a result does not name the models of other seeds

    def shadows(self) -> Shadows | None:
        return None  # nor shadow models

    @property
    def compared(self) -> set[str]:
        """The weights of the models that others are compared with: all but the run's own."""
        each = self.models.items()
        return {weights for model, weights in each if not isinstance(model, Role) or model.shared}

    def sources(self, model: Model) -> set[str]:
        """Return the keys of the artefacts that the evidence about a model may be read from.

        Results with models of equal weights may differ in them: one has the predictions of fewer splits.
        """
        own = {self.models[model], *self.compared}
        curves = (self._curves(kind.value) for kind in Curve)  # which of them depends on all models
        chosen = {made.key for each in curves for made in each.values() if self._weights(made) in own}
        random = {made.key for made in self._of_stage("random")}
        return chosen | random | {key for key, of in self._weights_by_key.items() if of in own}

    @cached_property
    def _weights_by_key(self) -> Mapping[str, str | None]:
        found = {}
        for stage, key in self.result.artefacts:
            with suppress(OSError, ValueError, KeyError):  # absent or damaged
                found[key] = self._weights(Artefact(stage, key, self.store.root / stage / key))
        return found

    def _in_parts(self, made: Sequence[Artefact]) -> Predictions | None:
        """Return stored predictions of splits in parts, or None if those of the test set are absent."""
        by_split = {self._identity(each)["split"]: each for each in made}
        if "test" not in by_split or self.request is None:
            return None
        splits = {split: stored_predictions(each) for split, each in by_split.items()}
        found = stored_request(self.request)
        return by_part(splits, {"train": found.rows, "test": found.test}, found.target)

    @cached_property
    def request(self) -> Artefact | None:
        """The artefact of the run's request."""
        requests = self._of_stage("request")
        own = [made for made in requests if self._identity(made)["seed"] == self.result.seed]
        return next(iter(own), None)

    def _of(self, stage: str, model: Model) -> list[Artefact]:
        """Return the artefacts of a stage that hold a model's weights, or are made of them."""
        own = self.models.get(model)
        return [made for made in self._of_stage(stage) if self._weights(made) == own]

    def _of_stage(self, stage: str) -> list[Artefact]:
        """Return the artefacts of a stage that are still in the store, but those of other models."""
        if stage not in self._found:
            known = [each for each in self.result.artefacts if each[0] == stage]
            self._found[stage] = list(self.store.stored(known, self._is_mine))
        return self._found[stage]

    def _is_mine(self, made: Artefact) -> bool:
        weights = self._weights(made)
        return weights is None or weights in self.models.values()

    def _weights(self, made: Artefact) -> str | None:
        """Return the checksum of the weights that an artefact holds or is made of; None if of none."""
        found: str | None = (
            weights_of(made) if made.stage in OF_MODELS else self._identity(made).get("weights")
        )
        return found

    def _identity(self, made: Artefact) -> Any:
        if made.key not in self.identities:
            self.identities[made.key] = made.identity
        return self.identities[made.key]
