"""The evidence that a metric sees of one model, by the needs that it declares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, Generic, TypeVar, overload

from torch import Tensor

from data.errors import ComponentError
from metrics.predictions import Predictions

T = TypeVar("T")


class Needs(Flag):
    """The evidence that a metric may ask for. What it does not declare is withheld."""

    NOTHING = 0
    PREDICTIONS = auto()
    REFERENCE = auto()
    REFERENCES = auto()
    ORIGINAL = auto()
    RANDOM = auto()
    WEIGHTS = auto()
    FEATURES = auto()
    RELEARN = auto()
    RECOVER = auto()
    COSTS = auto()
    ATTACK = auto()
    ALIGNMENT = auto()
    POPULATION = auto()
    SHADOWS = auto()


# The needs that are models of a whole cell, so that a metric has one value for all its seeds.
OF_A_CELL = Needs.POPULATION | Needs.SHADOWS


class Undeclared(ComponentError):
    """A metric read something that it does not declare."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The parameters, without buffers, of three models: the scored one, the original and the paired
    retrained one. The last is None if there is no reference."""

    own: Mapping[str, Tensor]
    original: Mapping[str, Tensor]
    reference: Mapping[str, Tensor] | None


@dataclass(frozen=True, eq=False)
class Features:
    """The inputs of the last linear layer, (n, d) float32 by part, of three models on the same rows.

    `own` is the scored model. The parts are `train_forget` and `test_forget`, where they have rows, and
    `train_retain` and `test_retain`. `train_retain` holds as many rows as `train_forget`, drawn once.
    """

    own: Mapping[str, Tensor]
    original: Mapping[str, Tensor]
    reference: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Point:
    """One look at a training: batches and seconds since its start, and the accuracies on two probes,
    from 0 to 1. An accuracy is NaN where the probe has no rows."""

    batches: int
    seconds: float
    forget: float
    retain: float


@dataclass(frozen=True)
class Curves:
    """The looks at one kind of training that begins at the scored model, and at the retrained one.

    The first point is at 0 batches. `start` is the original's point at 0 batches. `batches_per_epoch`
    is that of the training.
    """

    own: Sequence[Point]
    reference: Sequence[Point] | None
    start: Point
    batches_per_epoch: int


@dataclass(frozen=True)
class Costs:
    """The costs of making the scored model and the paired retrained one, by name."""

    own: Mapping[str, float]
    reference: Mapping[str, float] | None


@dataclass(frozen=True, eq=False)
class Attacked:
    """An attack by corrupted training rows on the scored model.

    `logits` (n, K) float32 are of the test rows as the attack shows them, and `aims` (n,) int64 are the
    classes that it aims at. `clean` (N,) bool is true for the rows of part `test` that must still be
    classified correctly.
    """

    logits: Tensor
    aims: Tensor
    clean: Tensor


@dataclass(frozen=True, eq=False)
class Population:
    """Models of one cell: unlearned ones, each of an original of its own, and retrained ones.

    All belong to the same request, and are made with different seeds.
    """

    unlearned: Sequence[Predictions]
    retrained: Sequence[Predictions]


@dataclass(frozen=True, eq=False)
class Shadows:
    """Shadow models: originals trained on the retained rows and a half of the rows to forget, and what
    the method makes of them when that half is to be forgotten.

    Models 2i and 2i + 1 are a pair with complementary halves. `originals` and `unlearned` are the
    predictions of the whole training set and test set, cut into the parts of the whole request.
    `forgot` (N, T) bool is true where model j was trained on forgotten row t. `rows` (T,) int64 are the
    numbers of these rows, in the order of part `train_forget`.
    """

    originals: Sequence[Predictions]
    unlearned: Sequence[Predictions]
    forgot: Tensor
    rows: Tensor


class _Declared(Generic[T]):
    """A piece of evidence that only a metric which declares it can read."""

    def __init__(self, need: Needs) -> None:
        self.need = need

    @overload
    def __get__(self, evidence: None, owner: type) -> "_Declared[T]": ...
    @overload
    def __get__(self, evidence: "Evidence", owner: type) -> T: ...
    def __get__(self, evidence: "Evidence | None", owner: type) -> "T | _Declared[T]":
        if evidence is None:
            return self
        if self.need not in evidence.given:
            raise Undeclared(
                f"it reads evidence.{str(self.need.name).lower()}, and does not declare it: add "
                f"Needs.{self.need.name} to its `needs`"
            )
        found: T = evidence.given[self.need]
        return found


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a metric sees of one model, called the scored model. `given` holds it by need.

    A piece that the metric does not declare raises `Undeclared`.
    """

    given: Mapping[Needs, Any]

    predictions = _Declared[Predictions](Needs.PREDICTIONS)
    """The predictions of the scored model."""

    reference = _Declared[Predictions](Needs.REFERENCE)
    """The predictions of the paired retrained model: the one of the same seed."""

    references = _Declared[Sequence[Predictions]](Needs.REFERENCES)
    """The predictions of all retrained models but the scored one."""

    original = _Declared[Predictions](Needs.ORIGINAL)
    """The predictions of the original."""

    random = _Declared[Predictions](Needs.RANDOM)
    """The predictions of a model with random weights, the same for all models of a seed."""

    weights = _Declared[Weights](Needs.WEIGHTS)
    features = _Declared[Features](Needs.FEATURES)

    relearn = _Declared[Curves](Needs.RELEARN)
    """Training on all rows, the forgotten ones too."""

    recover = _Declared[Curves](Needs.RECOVER)
    """Training on the retained rows."""

    costs = _Declared[Costs](Needs.COSTS)
    attack = _Declared[Attacked](Needs.ATTACK)

    alignment = _Declared[Tensor](Needs.ALIGNMENT)
    """The alignment t (F,) float64 of the noise in each forgotten row with the scored model's gradient,
    N(0, 1) if the model is independent of the noise (see `metrics.poison_alignment`)."""

    population = _Declared[Population](Needs.POPULATION)
    shadows = _Declared[Shadows](Needs.SHADOWS)

    def only(self, needs: Needs) -> "Evidence":
        """Return the evidence of these needs alone."""
        return Evidence({need: found for need, found in self.given.items() if need in needs})

    def lacks(self, needs: Needs) -> Needs:
        """Return those of the needs that there is no evidence for."""
        return needs & ~Needs(sum(need.value for need in self.given))
