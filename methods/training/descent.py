"""Gradient descent: its hyperparameters, its learning rate at every step, and one step of it."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.component import Component
from data.errors import UserError
from data.split import Batch
from data.streams import Streams
from methods.training.checks import at_least_one, zero_or_more
from models.precision import Precision


class Optimizer(Enum):
    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


class Schedule(Enum):
    """How the learning rate goes on after the warm-up: `constant`; `step`, times `gamma` at each
    epoch in `milestones`; `cosine`, to zero at the end."""

    constant = "constant"
    step = "step"
    cosine = "cosine"


@dataclass(frozen=True)
class Descent(Component):
    """Passes of minibatch gradient descent over one set of rows.

    `lr` climbs linearly from zero over `warmup` epochs (fractions allowed), then follows `schedule`.
    `momentum` is SGD's; Adam and AdamW keep torch's betas. `clip` bounds the norm of the whole
    gradient; null does not.
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    lr: float
    momentum: float
    weight_decay: float
    schedule: Schedule
    milestones: list[int]
    gamma: float
    warmup: float
    clip: float | None

    def check_parameters(self, option: str) -> None:
        """Raises UserError for numbers that describe no descent; `option` is where they were set."""
        zero_or_more(option, self, "epochs", "lr", "momentum", "weight_decay", "gamma", "warmup")
        at_least_one(option, self, "batch_size")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"{option}.clip={self.clip}: it must be above 0, or null")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step (counted from 0)."""
        epoch = step / steps_per_epoch
        if epoch < self.warmup:
            return self.lr * min(1.0, (step + 1) / (self.warmup * steps_per_epoch))
        return self.lr * _SCHEDULES[self.schedule](self, epoch)

    def updating(self, steps: "Iterator[Step]", model: nn.Module, streams: Streams) -> "Iterator[Step]":
        """The steps, where a variant may change their updates."""
        return steps

    def set_mode(self, model: nn.Module) -> None:
        """Put the model into the mode that its passes run in: training mode, unless overridden."""
        model.train()

    def optimizer_for(self, model: nn.Module) -> torch.optim.Optimizer:
        return _OPTIMIZERS[self.optimizer](self, [p for p in model.parameters() if p.requires_grad])


@dataclass(frozen=True)
class Recipe(Descent):
    """How a model is trained: the descent, and the arithmetic that everything about it uses."""

    kind: ClassVar[str] = "methods.training.Recipe"

    precision: Precision
    compile: bool


@dataclass(frozen=True)
class Step:
    """Between backward and update: gradients are ready, weights have not moved yet.

    `number` counts from 0 over the whole training; `loss` is the batch's mean; `lr` the rate that
    the update by `optimizer` will use.
    """

    number: int
    epoch: int
    batch: Batch
    logits: Tensor
    loss: Tensor
    lr: float
    model: nn.Module
    optimizer: torch.optim.Optimizer


_SCHEDULES: Mapping[Schedule, Callable[[Descent, float], float]] = {
    Schedule.constant: lambda descent, epoch: 1.0,
    Schedule.step: lambda descent, epoch: (
        descent.gamma ** bisect_right(sorted(descent.milestones), epoch)
    ),
    Schedule.cosine: lambda descent, epoch: 0.5 * (1 + math.cos(math.pi * epoch / descent.epochs)),
}

_OPTIMIZERS: Mapping[Optimizer, Callable[[Descent, list[nn.Parameter]], torch.optim.Optimizer]] = {
    Optimizer.sgd: lambda descent, parameters: torch.optim.SGD(
        parameters, descent.lr, momentum=descent.momentum, weight_decay=descent.weight_decay
    ),
    Optimizer.adam: lambda descent, parameters: torch.optim.Adam(
        parameters, descent.lr, weight_decay=descent.weight_decay
    ),
    Optimizer.adamw: lambda descent, parameters: torch.optim.AdamW(
        parameters, descent.lr, weight_decay=descent.weight_decay
    ),
}
