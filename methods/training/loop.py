"""Gradient descent as a generator: pretraining, recording, unlearning and logging share one loop."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import UserError
from data.split import Batch, Split
from data.streams import Streams
from methods.training.cost import Meter, pass_streams
from methods.training.descent import Descent, Recipe, Step
from models.precision import Precision, autocast

Log = Callable[[Mapping[str, float]], None]
LossFunction = Callable[[Tensor, Tensor], Tensor]  # of logits and labels
BatchLoss = Callable[[Tensor, Batch], Tensor]  # of logits and the batch that they are for

# Losses are looked at for NaN once in so many steps: often enough to stop soon, rarely enough that a
# GPU is not made to wait for the CPU at every step.
CHECK_EVERY = 32


class Diverged(UserError):
    """The loss or the weights became NaN or infinite."""


@dataclass(frozen=True)
class Conditions:
    """What surrounds a training: its random streams, its meter, where its curves go, its arithmetic, and
    who is told the model after every pass."""

    streams: Streams
    meter: Meter
    log: Log
    recipe: Recipe
    passed: Callable[[nn.Module], None] = lambda model: None

    @property
    def bf16(self) -> bool:
        return self.recipe.precision is Precision.bf16


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """The mean cross-entropy with the batch's own labels, in nats."""
    return F.cross_entropy(logits, batch.labels)


class Phase:
    """Passes over one split with one loss; a training may go through several phases in turn.

    Order, augmentation and the count of steps go on from pass to pass. An optimizer that is given may
    be shared with other phases (its momentum then is too); `factor` multiplies the learning rate of
    this one. A named phase draws from streams of its own, and its curves carry its name.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        descent: Descent,
        conditions: Conditions,
        loss_function: BatchLoss = cross_entropy,
        optimizer: torch.optim.Optimizer | None = None,
        factor: float = 1.0,
        name: str = "",
    ) -> None:
        self.model = model
        self.split = split
        self.descent = descent
        self.conditions = conditions
        self.loss_function = loss_function
        self.optimizer = optimizer or descent.optimizer_for(model)
        self.factor = factor
        self.name = name
        self._forward = torch.compile(model) if conditions.recipe.compile else model
        self._passes = pass_streams(conditions.streams.part(name) if name else conditions.streams)
        self._number = 0

    def steps(self, epoch: int) -> Iterator[Step]:
        """One pass, pausing before each update. Raises Diverged, with epoch and step, when a loss is
        NaN or infinite."""
        conditions, descent = self.conditions, self.descent
        steps_per_epoch = math.ceil(len(self.split) / descent.batch_size)
        unchecked: list[Tensor] = []
        descent.set_mode(self.model)
        for batch in conditions.meter.batches(self.split, descent.batch_size, self._passes):
            with autocast(conditions.bf16, batch.images.device):
                logits = self._forward(batch.images)
                loss = self.loss_function(logits.float(), batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            lr = self.factor * descent.rate(self._number, steps_per_epoch)
            unchecked.append(loss.detach())
            if len(unchecked) == CHECK_EVERY:
                _require_finite(unchecked, epoch, self._number)
            yield Step(
                self._number,
                epoch,
                batch,
                logits.detach(),
                loss.detach(),
                lr,
                self.model,
                self.optimizer,
            )
            if descent.clip is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), descent.clip)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self._number += 1
        _require_finite(unchecked, epoch, self._number - 1)
        conditions.passed(self.model)

    def run(self, epoch: int) -> None:
        """One pass to its end, logging its curves."""
        for _ in curves(self.steps(epoch), named(self.conditions.log, self.name)):
            pass


def train(
    model: nn.Module,
    split: Split,
    descent: Descent,
    conditions: Conditions,
    loss_function: LossFunction = F.cross_entropy,
) -> Iterator[Step]:
    """Trains `model` in place, pausing before each update.

    A consumer that stops early stops the training, before the update of the step it stopped at.
    Raises Diverged, with epoch and step, when a loss is NaN or infinite.
    """

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return loss_function(logits, batch.labels)

    phase = Phase(model, split, descent, conditions, loss)
    conditions.meter.progress.expect(descent.epochs * len(split))
    for epoch in range(descent.epochs):
        yield from phase.steps(epoch)


def alternate(phases: Sequence[Phase], epochs: int) -> None:
    """One pass of each phase in turn, `epochs` times, with curves."""
    rows = sum(len(phase.split) for phase in phases)
    phases[0].conditions.meter.progress.expect(epochs * rows)
    for epoch in range(epochs):
        for phase in phases:
            phase.run(epoch)


def curves(steps: Iterator[Step], log: Log) -> Iterator[Step]:
    """Passes steps on and logs, at the end of every epoch or where the steps are left, `epoch` (from 1),
    mean `loss`, `accuracy` on the rows as they were trained on, and the last `lr`."""
    totals: dict[str, Tensor] = {}
    rows, last = 0, None
    try:
        for step in steps:
            if last is not None and step.epoch != last.epoch:
                _log_epoch(last, totals, rows, log)
                totals, rows = {}, 0
            last, rows = step, rows + len(step.batch.rows)
            right = (step.logits.argmax(1) == step.batch.labels).sum()
            totals["loss"] = totals.get("loss", 0) + step.loss * len(step.batch.rows)
            totals["accuracy"] = totals.get("accuracy", 0) + right
            yield step
    finally:
        if last is not None:
            _log_epoch(last, totals, rows, log)


def named(log: Log, name: str) -> Log:
    """Where curves go that carry a name."""
    prefix = f"{name}_" if name else ""

    def told(values: Mapping[str, float]) -> None:
        log({key if key == "epoch" else prefix + key: value for key, value in values.items()})

    return told


def fit(
    model: nn.Module,
    split: Split,
    descent: Descent,
    conditions: Conditions,
) -> nn.Module:
    """Trains to the end, logging curves; returns the same module."""
    for _ in curves(train(model, split, descent, conditions), conditions.log):
        pass
    return model


def require_finite(model: nn.Module) -> None:
    """Raises Diverged where a weight is NaN or infinite: no loss was looked at after the last update."""
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise Diverged(f"{name} is no longer finite: lower the learning rate, or set clip")


def _log_epoch(last: Step, totals: Mapping[str, Tensor], rows: int, log: Log) -> None:
    means = {name: total.item() / rows for name, total in totals.items()}
    log({"epoch": last.epoch + 1, **means, "lr": last.lr})


def _require_finite(losses: list[Tensor], epoch: int, last: int) -> None:
    """Raises Diverged for the first bad one of these losses, the last of which is step `last`'s."""
    bad = (~torch.stack(losses).isfinite()).nonzero() if losses else torch.empty(0)
    if len(bad):
        index = int(bad[0])
        raise Diverged(
            f"the loss became {losses[index].item()} in epoch {epoch + 1}, at step "
            f"{last - len(losses) + 2 + index}: lower the learning rate, or bound the gradient with clip"
        )
    losses.clear()
