"""The training loop: gradient descent as a generator of steps.

Pretraining, recording, unlearning and logging share this loop. A step is yielded after its backward
pass and before its update, so that a consumer can read or change gradients, log, or stop:

    for step in train(model, split, descent, conditions):
        ...  # step.model holds the gradients of step.batch; the update follows
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.split import Batch, Split
from data.streams import Streams
from methods.training.checkpoint import NO_CHECKPOINT, Checkpoint, Place, Stateful, Values
from methods.training.cost import Meter, pass_streams
from methods.training.descent import Descent, Recipe, Step
from methods.training.divergence import Losses
from methods.training.processes import ALONE, Forward, Processes
from models.precision import Precision, autocast, widened

Log = Callable[[Mapping[str, float]], None]
LossFunction = Callable[[Tensor, Tensor], Tensor]  # logits (B, K) and labels (B,) to a scalar
BatchLoss = Callable[[Tensor, Batch], Tensor]  # logits (B, K) and their batch to a scalar

# The values of a point of the curves.
CURVES = ("epoch", "loss", "accuracy", "lr")


@dataclass(frozen=True)
class Conditions:
    """The surroundings of a training.

    `streams` give its random numbers, `meter` its batches, and `log` receives its curves. `recipe`
    decides precision and compilation. `passed` is called with the model after every complete pass over
    a split. `checkpoint` keeps the state of `fit`, and `processes` share its batches.
    """

    streams: Streams
    meter: Meter
    log: Log
    recipe: Recipe
    passed: Callable[[nn.Module], None] = lambda model: None
    checkpoint: Checkpoint = NO_CHECKPOINT
    processes: Processes = ALONE

    @property
    def bf16(self) -> bool:
        """Return true if forward passes run in bfloat16 autocast."""
        return self.recipe.precision is Precision.bf16


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross-entropy with the batch's labels, in nats."""
    return F.cross_entropy(logits, batch.labels)


class Phase:
    """Passes over one split with one loss.

    A training may alternate between phases. From pass to pass, each phase continues its step count and
    its random streams of row order and augmentation. Several phases may share one `optimizer`, including
    its momentum; without one, the phase makes its own. `factor` multiplies the learning rate of this
    phase. A phase that `climbs` takes its steps up the loss, which its curves show as it is. A phase
    with a `name` has random streams of that name, and prefixes its curves with the name. `before` is
    called with the number of each step, ahead of its forward pass; it may move the weights. Its steps,
    and so its learning rates, are those of a training that has completed `completed` passes.
    With a `checkpoint` of a training, the phase is a part of its state. Several `processes` can share
    its batches if the model gives each row logits of its own.
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
        climbs: bool = False,
        name: str = "",
        before: Callable[[int], None] = lambda number: None,
        completed: int = 0,
        checkpoint: Checkpoint = NO_CHECKPOINT,
        processes: Processes = ALONE,
    ) -> None:
        self.model = model
        self.split = split
        self.descent = descent
        self.conditions = conditions
        self.loss_function = loss_function
        self.optimizer: torch.optim.Optimizer = optimizer or descent.optimizer_for(model)
        self.factor = factor
        self.climbs = climbs
        self.name = name
        self.before = before
        self._forward: Forward = processes.forward(model, conditions.bf16)
        self._warm: set[torch.Size] = set()
        self._passes = pass_streams(conditions.streams.part(name) if name else conditions.streams)
        self.place = Place(self._passes, completed * math.ceil(len(split) / descent.batch_size))
        self._losses = Losses()
        self.checkpoint = checkpoint
        parts: dict[str, Stateful] = {
            "model": model,
            "optimizer": self.optimizer,
            "place": self.place,
            "losses": self._losses,
        }
        for part_name, part in parts.items():
            checkpoint.add(part_name, part)

    def steps(self, epoch: int) -> Iterator[Step]:
        """Yield the steps of one pass, each between its backward pass and its update.

        `epoch` labels the pass, from 0. The model is in the mode that `descent.set_mode` chooses. It is
        updated in place when the next step is requested; if a consumer stops, the last step has no
        update. The pass ends early if the meter's budget ends. Raise Diverged, naming epoch and step, if
        a loss is NaN or infinite.
        """
        conditions, descent = self.conditions, self.descent
        steps_per_epoch = math.ceil(len(self.split) / descent.batch_size)
        place, losses = self.place, self._losses
        place.epoch = epoch
        descent.set_mode(self.model)
        for batch in self._batches():
            self.before(place.number)
            if conditions.recipe.compile and batch.images.shape not in self._warm:
                with conditions.meter.compiling():
                    self._warm_up(batch.images)
            with autocast(conditions.bf16, batch.images.device):
                logits = self._forward(batch.images)
                loss = self.loss_function(widened(logits), batch)
            self.optimizer.zero_grad(set_to_none=True)
            (-loss if self.climbs else loss).backward()
            # `factor` times the learning rate of this step, which counts over all passes of the phase
            lr = self.factor * descent.rate(place.number, steps_per_epoch)
            losses.add(loss.detach(), epoch, place.number)
            seen = logits.detach(), loss.detach()
            yield Step(place.number, epoch, batch, *seen, lr, self.model, self.optimizer)
            self._update(lr)
            place.end_step()
            self.checkpoint.step_ended()
        losses.check()
        place.end_pass()
        conditions.passed(self.model)

    def _batches(self) -> Iterator[Batch]:
        """Return the batches of the present pass that were not taken yet."""
        size = self.descent.batch_size
        return self.conditions.meter.batches(self.split, size, self._passes, skip=self.place.taken)

    def run(self, epoch: int) -> None:
        """Run one pass to its end and log its curves."""
        for _ in curves(self.steps(epoch), named(self.conditions.log, self.name)):
            pass

    def _warm_up(self, images: Tensor) -> None:
        """Compile the passes over a batch of this shape, ahead of its step and outside its cost.

        The passes leave no trace: neither gradients, nor statistics in buffers, nor random numbers.
        """
        if not self._warm:
            self._forward = torch.compile(self.model)
        kept = {name: value.clone() for name, value in self.model.named_buffers()}
        own = (value for part in self.model.modules() for value in vars(part).values())
        states = [(rng, rng.get_state()) for rng in own if isinstance(rng, torch.Generator)]
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            with autocast(self.conditions.bf16, images.device):
                logits = self._forward(images)
            widened(logits).square().mean().backward()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.model.named_buffers():
                value.copy_(kept[name])
        for rng, state in states:
            rng.set_state(state)
        self._warm.add(images.shape)

    def _update(self, lr: float) -> None:
        """Clip the gradients, which the consumer may have changed, and update the weights."""
        if self.descent.clip is not None:
            # g ← g·min(1, clip/‖g‖), with ‖g‖ over all parameters
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.descent.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()


def train(
    model: nn.Module,
    split: Split,
    descent: Descent,
    conditions: Conditions,
    loss_function: LossFunction = F.cross_entropy,
    checkpoint: Checkpoint = NO_CHECKPOINT,
    processes: Processes = ALONE,
    climbs: bool = False,
) -> Iterator[Step]:
    """Train `model` in place for `descent.epochs` passes, yielding every step before its update.

    `loss_function` takes logits (B, K) in float32 and labels (B,), and returns their mean loss. Steps
    and epochs count from 0 over the whole training. Nothing runs until the first step is requested. A
    consumer that stops early stops the training, without the update of its last step; `fit` runs a
    training to its end. A consumer that has a state of its own adds it to the `checkpoint`, if it gives
    one. The `processes` share the passes over every batch (see `methods.training.processes`). A training
    that `climbs` takes its steps up the loss. Raise Diverged, naming epoch and step, if a loss is NaN or
    infinite.
    """
    phase = Phase(
        model, split, descent, conditions,
        lambda logits, batch: loss_function(logits, batch.labels),
        climbs=climbs, checkpoint=checkpoint, processes=processes,
    )  # fmt: skip
    done = phase.place.epoch * len(split) + phase.place.taken * descent.batch_size
    conditions.meter.progress.expect(descent.epochs * len(split), done)
    for epoch in range(phase.place.epoch, descent.epochs):
        yield from phase.steps(epoch)


def alternate(phases: Sequence[Phase], epochs: int) -> None:
    """Run one pass of each phase in turn, `epochs` times, and log their curves."""
    rows = sum(len(phase.split) for phase in phases)
    phases[0].conditions.meter.progress.expect(epochs * rows)
    for epoch in range(epochs):
        for phase in phases:
            phase.run(epoch)


def curves(steps: Iterator[Step], log: Log, checkpoint: Checkpoint = NO_CHECKPOINT) -> Iterator[Step]:
    """Yield the steps unchanged, and log one point of the curves per epoch.

    A point holds `epoch` (from 1), the mean `loss` and the `accuracy` (0 to 1) over the epoch's rows,
    and the last `lr`. Both means come from the training batches themselves: augmented, in the mode of
    the passes, and before each update. A consumer that stops early still gets the point of the rows so
    far; a process that ends does not, as the one that goes on logs the whole epoch.
    """
    # the sums over the rows of the epoch so far, and the last step's epoch and learning rate
    so_far = Values(totals={}, rows=0, epoch=None, lr=0.0)
    checkpoint.add("curves", so_far)
    try:
        for step in steps:
            if so_far["epoch"] not in (None, step.epoch):
                _log_epoch(so_far, log)
            size = len(step.batch.rows)
            # The last batch may be smaller, so the sum of losses weights each batch by its rows. Right
            # are the rows in the batch whose largest logit is that of their label.
            right = (step.logits.argmax(1) == step.batch.labels).sum()
            new = {"loss": step.loss * size, "accuracy": right}
            totals = {name: so_far["totals"].get(name, 0) + value for name, value in new.items()}
            so_far.update(totals=totals, rows=so_far["rows"] + size, epoch=step.epoch, lr=step.lr)
            yield step
    except (SystemExit, KeyboardInterrupt):
        so_far.update(epoch=None)
        raise
    finally:
        if so_far["epoch"] is not None:
            _log_epoch(so_far, log)


def named(log: Log, name: str) -> Log:
    """Return a log that prefixes every value except `epoch` with the name, if there is one."""
    prefix = f"{name}_" if name else ""

    def log_prefixed(values: Mapping[str, float]) -> None:
        log({key if key == "epoch" else prefix + key: value for key, value in values.items()})

    return log_prefixed


def of_phase(name: str) -> tuple[str, ...]:
    """Return the values that a phase of this name logs beside `epoch`."""
    return tuple(f"{name}_{value}" for value in CURVES if value != "epoch")


def fit(model: nn.Module, split: Split, descent: Descent, conditions: Conditions) -> nn.Module:
    """Train `model` in place to the end, log its curves, and return it.

    The training goes on from the state that the conditions' checkpoint has of it.
    """
    with conditions.checkpoint.training(conditions.meter) as checkpoint:
        steps = train(
            model, split, descent, conditions, checkpoint=checkpoint, processes=conditions.processes
        )
        for _ in curves(steps, conditions.log, checkpoint):
            pass
    return model


def _log_epoch(so_far: Values, log: Log) -> None:
    """Log the point of an epoch, and begin the next."""
    # (1/n) Σ over the n rows of the epoch
    means = {name: total.item() / so_far["rows"] for name, total in so_far["totals"].items()}
    log({"epoch": so_far["epoch"] + 1, **means, "lr": so_far["lr"]})
    so_far.update(totals={}, rows=0, epoch=None)
