"""What a method is given, and what it must do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from data.component import Component
from data.split import Split
from data.streams import Streams
from methods.meter import Cost
from methods.recording import Recorder
from methods.training import Conditions, Recipe
from metrics.predictions import autocast

# Rows looked at together.
LOOK = 256


class Access(Flag):
    """Data that a method may see while it unlearns; whatever it does not declare is withheld."""

    NOTHING = 0
    FORGET = auto()
    RETAIN = auto()


@dataclass(frozen=True)
class Facts:
    """What is known of a request before any work: how many training rows there are in `all`, how many
    a method would be given to forget and to retain, the number of classes, the original's recipe, the
    classes of which nothing is retained (`gone`: the whole classes of a request), whether the request is
    to relabel, and the layers of the model, without numbers (`outline`)."""

    all: int
    forget: int
    retain: int
    gone: list[int]
    relabels: bool
    classes: int
    recipe: Recipe
    outline: Callable[[], nn.Module]


class Kept(Protocol):
    """Trainings that are kept for every request that can use them."""

    def __call__(
        self,
        identity: Mapping[str, Any],
        make: Callable[[Conditions], nn.Module],
        shell: nn.Module,
        budget: int | None,
    ) -> Cost:
        """Loads into `shell` what `make` returns, made now or long ago, within the budget; returns what
        making it did cost.

        `identity` says all that decides it beyond data, architecture, recipe, seed and budget. The cost
        is nobody's until it is added to a meter, and the time spent here is on no meter."""


@dataclass
class Problem:
    """Everything a method may use.

    `model` is a private copy of the original, on the device, to change or to leave (in a repair: of the
    unlearned model); `original` loads another. `fresh` makes a new model of the same architecture, as
    untrained as the original once was; `drawn` one at random, also where the original began with a file
    of weights. `conditions` hold the method's own random streams, the meter that supplies batches, and
    the log. `forget` and `retain` are None unless `Method.access` declares them; `forget_rows` (F,) only
    names rows. `recording` is the folder of the record that `Method.records` asks for. `kept` keeps
    trainings that belong to no single request.
    """

    model: nn.Module
    original: Callable[[], nn.Module]
    fresh: Callable[[Streams], nn.Module]
    drawn: Callable[[Streams], nn.Module]
    classes: int
    conditions: Conditions
    forget: Split | None = None
    retain: Split | None = None
    forget_rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    recording: Path | None = None
    kept: "Kept | None" = None

    @property
    def recipe(self) -> Recipe:
        """How the original was trained."""
        return self.conditions.recipe


class Method(Component):
    """An unlearning method: a frozen dataclass whose fields are its hyperparameters."""

    access: ClassVar[Access]
    records: ClassVar[type[Recorder] | None] = None  # whose record of the training it reads

    def sees(self) -> Access:
        """What it may see, where that depends on its parameters."""
        return self.access

    def check_parameters(self, option: str) -> None:
        """Raises UserError for parameters that make no sense; `option` is where they were set."""

    def check(self, facts: Facts) -> None:
        """Raises UserError where the method cannot serve the request; called before pretraining."""

    def before(self, problem: Problem) -> nn.Module | None:
        """The model that the method would have had before the request, where that is not the original:
        for methods that train otherwise from the start."""
        return None

    def module(self, fresh: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
        """A module that the weights of what it returns can be loaded into."""
        return fresh()

    def unlearn(self, problem: Problem) -> nn.Module:
        """The unlearned model, on the device: the one given, changed in place, or another."""
        raise NotImplementedError


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, conditions: Conditions) -> float:
    """The share of rows that a model, put into evaluation mode, has right; counted as forward passes."""
    model.eval()
    right = 0
    for batch in conditions.meter.looks(split, LOOK):
        with autocast(conditions.bf16, batch.images.device):
            right += int((model(batch.images).argmax(1) == batch.labels).sum())
    return right / len(split)
