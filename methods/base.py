"""The interface of an unlearning method: the problem that it receives, and what it must define."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from data.component import Component
from data.errors import ComponentError
from data.split import Split
from data.streams import Streams
from methods.recording.recorder import Recorder
from methods.training.cost import Cost
from methods.training.descent import Recipe
from methods.training.loop import CURVES, Conditions, Log
from models.precision import autocast

# The rounding of an accuracy, which decides no comparison: unequal shares of n and m rows differ by
# 1/(n·m) or more.
ROUNDING = 1e-12

# Rows of a forward batch when a method measures accuracy.
FORWARD_BATCH = 256


class Access(Flag):
    """The data that a method may see while it unlearns. Data that it does not declare is withheld."""

    NOTHING = 0
    FORGET = auto()
    RETAIN = auto()


class Undeclared(ComponentError):
    """A method read or logged something that it does not declare."""


@dataclass(frozen=True)
class Facts:
    """The facts of a request that are known before any work.

    `all`, `forget` and `retain` count the training rows in total, to forget and to retain; `gone` lists
    the classes of which nothing is retained (the whole classes of a request); `relabels` is true if
    the request is to relabel; `classes` counts the classes; `recipe` is the original's; `outline`
    builds the model without weights, as layers and shapes on torch's meta device.
    """

    all: int
    forget: int
    retain: int
    gone: list[int]
    relabels: bool
    classes: int
    recipe: Recipe
    outline: Callable[[], nn.Module]


class CachedTraining(Protocol):
    """Trainings that are stored once and reused by every request that they fit."""

    def __call__(
        self,
        identity: Mapping[str, Any],
        make: Callable[[Conditions], nn.Module],
        shell: nn.Module,
        budget: int | None,
    ) -> Cost:
        """Load the cached model into `shell`, training it with `make` within `budget` if it is absent.

        `identity` names everything that decides the result, apart from data, architecture, recipe, seed
        and budget. Return the cost of the training. Neither that cost nor the time spent here is on any
        meter until the caller adds it.
        """


@dataclass
class Problem:
    """Everything that a method may use to unlearn.

    `model` is a private copy of the original on the device, which the method may change in place. In a
    repair it is a copy of the unlearned model. `original()` loads another copy of the original.
    `fresh(streams)` makes a new model as at the start of training: from a file of weights if there is
    one. `randomly_initialised(streams)` makes one with random weights in any case. `classes` is K.
    `conditions` hold the method's random streams, the meter that supplies batches, and the log.
    `forget_rows` (F,) int64 holds the numbers of the forgotten rows, without their data.
    `cached_training` stores trainings that several requests can use.

    `forget`, `retain`, `rest`, `gone` and `recording` raise `Undeclared` if the method does not declare
    what they read.
    """

    model: nn.Module
    original: Callable[[], nn.Module]
    fresh: Callable[[Streams], nn.Module]
    randomly_initialised: Callable[[Streams], nn.Module]
    classes: int
    conditions: Conditions
    cached_training: CachedTraining
    forget_rows: Tensor
    declared_forget: Split | None = field(default=None, repr=False)
    declared_retain: Split | None = field(default=None, repr=False)
    declared_recording: Path | None = field(default=None, repr=False)

    @property
    def forget(self) -> Split:
        """The rows to forget, under their own labels."""
        if self.declared_forget is None:
            raise Undeclared(_undeclared("forget", "FORGET"))
        return self.declared_forget

    @property
    def retain(self) -> Split:
        """The rows that may be used. In a request to relabel these are all rows, relabelled."""
        if self.declared_retain is None:
            raise Undeclared(_undeclared("retain", "RETAIN"))
        return self.declared_retain

    @cached_property
    def rest(self) -> Split:
        """The retained rows that are not to be forgotten: `retain` without the relabelled rows."""
        # Only a request to relabel retains the forgotten rows too.
        if not torch.isin(self.forget_rows, self.retain.rows.cpu()).any():
            return self.retain
        return self.retain.without(self.forget_rows)

    @property
    def gone(self) -> list[int]:
        """The classes of which no row is retained, in ascending order."""
        kept = set(self.retain.labels.unique().tolist())
        return [label for label in range(self.classes) if label not in kept]

    @property
    def recording(self) -> Path:
        """The folder of the record that `Method.records` names."""
        if self.declared_recording is None:
            raise Undeclared(
                "it reads problem.recording and declares no record: set `records` to a recorder's class"
            )
        return self.declared_recording

    @property
    def recipe(self) -> Recipe:
        """The recipe that trained the original."""
        return self.conditions.recipe


class Method(Component):
    """An unlearning method: a frozen dataclass whose fields are its hyperparameters.

    `access` declares the data that it sees, and `records` the recorder whose record it reads. `logs`
    names the values that it logs, but those of the curves that every training logs (`CURVES`).
    `starts_fresh` is true if it uses no weight of the original: its `problem.model` is a new model.
    `makes_passes` is true if it trains that model in passes, after which `evaluation.every` scores it;
    every `Descent` does.
    """

    access: ClassVar[Access]
    records: ClassVar[type[Recorder] | None] = None
    logs: ClassVar[tuple[str, ...]] = ()
    starts_fresh: ClassVar[bool] = False
    makes_passes: ClassVar[bool] = False

    @property
    def trains_before(self) -> bool:
        """True if the method trains a model of its own before any request."""
        return type(self).initial_training is not Method.initial_training

    def sees(self) -> Access:
        """Return the data that the method sees. Override it if that depends on the hyperparameters."""
        return self.access

    def check_parameters(self, option: str) -> None:
        """Raise UserError if the hyperparameters contradict each other; `option` is their option group.
        The bounds of a single number stand in its annotation (see `data.bounds`)."""

    def check(self, facts: Facts) -> None:
        """Raise UserError if the method cannot serve the request. Called before pretraining."""

    def initial_training(self, problem: Problem) -> nn.Module | None:
        """Return the model that this method trains before any request, or None if it is the original.

        For methods that train in another way from the start, such as SISA.
        """
        return None

    def module(self, fresh: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
        """Return a module that can load `state`, the weights of an unlearned model."""
        return fresh()

    def unlearn(self, problem: Problem) -> nn.Module:
        """Return the unlearned model on the device: `problem.model`, changed in place, or another."""
        raise NotImplementedError


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, conditions: Conditions) -> float:
    """Return the share of rows that the model classifies correctly, from 0 to 1.

    Puts the model into evaluation mode. The rows are counted as forward examples.
    """
    model.eval()
    right = 0
    for batch in conditions.meter.forward_batches(split, FORWARD_BATCH):
        with autocast(conditions.bf16, batch.images.device):
            # 1[argmax_k f(x)_k = y], summed over the batch; the logits are (B, K)
            right += int((model(batch.images).argmax(1) == batch.labels).sum())
    return right / len(split)


def declared(method: Method, log: Log) -> Log:
    """Return a log that takes what the method declares. It raises Undeclared for any other value."""
    known = {*CURVES, *method.logs}

    def log_declared(values: Mapping[str, float]) -> None:
        for name in values:
            if name not in known:
                raise Undeclared(f"it logs {name}, and does not declare it: add {name!r} to its `logs`")
        log(values)

    return log_declared


def _undeclared(part: str, flag: str) -> str:
    return f"it reads problem.{part}, and does not declare it: add Access.{flag} to its `access`"
