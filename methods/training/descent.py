"""Gradient descent: its hyperparameters, its learning rate at every step, and one step of it."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from data.bounds import COUNT, EPOCHS, MOMENTUM, POSITIVE, RATE
from data.component import Component
from data.errors import UserError
from data.split import Batch
from data.streams import Streams
from models.precision import Precision


class Optimizer(Enum):
    """The optimizers, under torch's names."""

    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


class Schedule(Enum):
    """The course of the learning rate after the warm-up.

    `constant` keeps it. `step` multiplies it by `gamma` at each epoch in `milestones`. `cosine` lowers
    it towards zero at the end of the last epoch (Loshchilov & Hutter 2017, eq. 5, without restarts).
    `linear` lowers it from the end of the warm-up, by the same amount at every step, to zero at the end
    of the last epoch.
    """

    constant = "constant"
    step = "step"
    cosine = "cosine"
    linear = "linear"


# The fields of a descent that may have an effect without a step: methods also measure in batches.
UNSTEPPED = {"epochs", "batch_size"}


@dataclass(frozen=True)
class Descent(Component):
    """Minibatch gradient descent over one set of rows.

    `epochs` counts passes over the rows, in batches of `batch_size` rows. `lr` is the learning rate: it
    rises linearly from zero over the first `warmup` epochs, which may be a fraction and must be fewer
    than `epochs`, and then follows `schedule`. `momentum`, below 1, applies to SGD; Adam and AdamW keep
    torch's betas. `weight_decay` is the factor λ of the penalty λ/2·‖θ‖² in SGD and Adam, and of the
    decoupled decay in AdamW. `clip` is the largest norm of the whole gradient; None does not clip.
    Each field's annotation states the bounds of its values.
    """

    makes_passes: ClassVar[bool] = True

    epochs: Annotated[int, EPOCHS]
    batch_size: Annotated[int, COUNT]
    optimizer: Optimizer
    lr: Annotated[float, POSITIVE]
    momentum: Annotated[float, MOMENTUM]
    weight_decay: Annotated[float, RATE]
    schedule: Schedule
    milestones: list[Annotated[int, EPOCHS]]
    gamma: Annotated[float, RATE]
    warmup: Annotated[float, EPOCHS]
    clip: Annotated[float, POSITIVE] | None

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "milestones": sorted(self.milestones)}

    def check_parameters(self, option: str) -> None:
        """Raise UserError if the warm-up leaves a phase no epoch at the full learning rate, or if a
        schedule of steps has no step.

        `option` is the option group that holds the fields, such as `training` or `method`.
        """
        for name, epochs in self.phases().items():
            if 0 < epochs <= self.warmup:
                raise UserError(
                    f"{option}.warmup={self.warmup:g} takes all of {option}.{name}={epochs} and leaves "
                    f"no epoch at the full learning rate: set {option}.warmup below {epochs}"
                )
        if self.schedule is Schedule.step and not self.milestones:
            raise UserError(
                f"{option}.schedule=step has no epoch to step at: set {option}.milestones=[…], or "
                f"{option}.schedule=constant"
            )

    def phases(self) -> Mapping[str, int]:
        """Return the epochs of every phase that this schedule runs in, by the name of their field."""
        return {"epochs": self.epochs}

    def idle(self) -> Mapping[str, str]:
        found, phases = {}, self.phases()
        longest = max(phases, key=phases.__getitem__)
        if not phases[longest]:
            reason = f"{' and '.join(f'{name}=0' for name in phases)} leave no step"
            return {each.name: reason for each in fields(Descent) if each.name not in UNSTEPPED}
        if self.optimizer is not Optimizer.sgd:
            found["momentum"] = f"optimizer={self.optimizer.name} has none"
        if self.schedule is not Schedule.step:
            reason = f"schedule={self.schedule.name} has no steps"
            found |= {"milestones": reason, "gamma": reason}
        elif min(self.milestones, default=0) >= phases[longest]:
            reason = f"the training ends after {longest}={phases[longest]}, before the first milestone"
            found |= {"schedule": reason, "milestones": reason, "gamma": reason}
        return found

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step; steps count from 0 over the whole training."""
        # e, with a fraction within a pass
        epoch = step / steps_per_epoch
        if epoch < self.warmup:
            # Warm-up: lr·(t + 1)/T for step t of the T = warmup·steps_per_epoch first ones.
            return self.lr * min(1.0, (step + 1) / (self.warmup * steps_per_epoch))
        # lr·s(e), with s the schedule
        return self.lr * _SCHEDULES[self.schedule](self, epoch)

    def updating(self, steps: "Iterator[Step]", model: nn.Module, streams: Streams) -> "Iterator[Step]":
        """Return the steps of a training. A subclass may change the updates between them."""
        return steps

    def set_mode(self, model: nn.Module) -> None:
        """Put the model into the mode of its passes: training mode, unless a subclass overrides it."""
        model.train()

    def optimizer_for(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return a new optimizer of the parameters that require gradients."""
        return _OPTIMIZERS[self.optimizer](self, [p for p in model.parameters() if p.requires_grad])


@dataclass(frozen=True)
class Recipe(Descent):
    """The training of a model: its descent, and the precision of every pass through the model.

    `compile` passes the model through `torch.compile` for training. Compilation takes half a minute for
    a small network and longer for a large one, so it pays off in long trainings only; costs state it
    apart. `checkpoint_minutes` is the time between two states that a killed training can go on from.
    """

    kind: ClassVar[str] = "methods.training.Recipe"

    precision: Precision
    compile: bool
    checkpoint_minutes: Annotated[float, POSITIVE]

    def identity(self) -> dict[str, Any]:
        found = super().identity()
        del found["checkpoint_minutes"]  # it changes no result
        return found

    def idle(self) -> Mapping[str, str]:
        return super().idle() if self.epochs else {}  # curves take steps from a model that has had none


@dataclass(frozen=True)
class Step:
    """One step of a training, between its backward pass and its update.

    The parameters of `model` hold their gradients in `.grad`, not clipped yet, and their values have
    not moved. `number` counts steps and `epoch` passes, both from 0 over the whole training. `logits`
    (B, K) and the scalar `loss`, the mean over the batch, are detached from the graph. `lr` is the
    learning rate that `optimizer` will use.
    """

    number: int
    epoch: int
    batch: Batch
    logits: Tensor
    loss: Tensor
    lr: float
    model: nn.Module
    optimizer: torch.optim.Optimizer


# The factor of `lr` at an epoch e, which has a fraction within a pass.
_SCHEDULES: Mapping[Schedule, Callable[[Descent, float], float]] = {
    Schedule.constant: lambda descent, epoch: 1.0,
    # gamma^(number of milestones m with m ≤ e)
    Schedule.step: lambda descent, epoch: (
        descent.gamma ** bisect_right(sorted(descent.milestones), epoch)
    ),
    # (1 + cos(π·e/epochs))/2: 1 at the start, 0 after the last epoch
    Schedule.cosine: lambda descent, epoch: 0.5 * (1 + math.cos(math.pi * epoch / descent.epochs)),
    # (epochs − e)/(epochs − warmup): 1 at the end of the warm-up, 0 after the last epoch
    Schedule.linear: lambda descent, epoch: (descent.epochs - epoch) / (descent.epochs - descent.warmup),
}

_OPTIMIZERS: Mapping[Optimizer, Callable[[Descent, list[nn.Parameter]], torch.optim.Optimizer]] = {
    # v ← momentum·v + g + λθ, then θ ← θ − lr·v
    Optimizer.sgd: lambda descent, parameters: torch.optim.SGD(
        parameters, descent.lr, momentum=descent.momentum, weight_decay=descent.weight_decay
    ),
    # Adam's step for the gradient g + λθ (Kingma & Ba 2015)
    Optimizer.adam: lambda descent, parameters: torch.optim.Adam(
        parameters, descent.lr, weight_decay=descent.weight_decay
    ),
    # θ ← θ − lr·λθ, then Adam's step for the gradient g (Loshchilov & Hutter 2019)
    Optimizer.adamw: lambda descent, parameters: torch.optim.AdamW(
        parameters, descent.lr, weight_decay=descent.weight_decay
    ),
}
