"""What a method is given, and what it must do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Flag, auto
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.component import Component
from data.split import Split
from data.streams import Streams
from methods.recording import Recorder
from methods.training import Conditions, Recipe


class Access(Flag):
    """Data that a method may see while it unlearns; whatever it does not declare is withheld."""

    NOTHING = 0
    FORGET = auto()
    RETAIN = auto()


@dataclass(frozen=True)
class Facts:
    """What is known of a request before any work: how many training rows there are in `all`, how many
    a method would be given to forget and to retain, the number of classes, the original's recipe, the
    classes of which nothing is retained (`gone`: the whole classes of a request), and whether the
    request is to relabel."""

    all: int
    forget: int
    retain: int
    gone: list[int]
    relabels: bool
    classes: int
    recipe: Recipe


@dataclass
class Problem:
    """Everything a method may use.

    `model` is a private copy of the original, on the device, to change or to leave (in a repair: of the
    unlearned model); `original` loads another. `fresh` makes a new model of the same architecture, as
    untrained as the original once was. `conditions` hold the
    method's own random streams, the meter that supplies batches, and the log. `forget` and `retain`
    are None unless `Method.access` declares them; `forget_rows` (F,) only names rows. `recording` is the
    folder of the record that `Method.records` asks for.
    """

    model: nn.Module
    original: Callable[[], nn.Module]
    fresh: Callable[[Streams], nn.Module]
    classes: int
    conditions: Conditions
    forget: Split | None = None
    retain: Split | None = None
    forget_rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    recording: Path | None = None

    @property
    def recipe(self) -> Recipe:
        """How the original was trained."""
        return self.conditions.recipe


class Method(Component):
    """An unlearning method: a frozen dataclass whose fields are its hyperparameters."""

    access: ClassVar[Access]
    records: ClassVar[type[Recorder] | None] = None  # whose record of the training it reads

    def check_parameters(self, option: str) -> None:
        """Raises UserError for parameters that make no sense; `option` is where they were set."""

    def check(self, facts: Facts) -> None:
        """Raises UserError where the method cannot serve the request; called before pretraining."""

    def unlearn(self, problem: Problem) -> nn.Module:
        """The unlearned model, on the device: the one given, changed in place, or another."""
        raise NotImplementedError
