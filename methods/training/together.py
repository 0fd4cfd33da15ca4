"""Models of one architecture that train together, step by step, as one module.

On a GPU, the kernels of one small model leave most of the processor idle. The models are therefore
stacked: each parameter gets a leading dimension of models, and `torch.vmap` runs all forward passes as
one. The gradient of the sum of the losses holds the gradient of each model in its slice, since no loss
depends on the weights of another model.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from data.split import Batch, Split
from methods.training.checkpoint import Checkpoint, Place, State, Values
from methods.training.cost import Cost, Meter, pass_streams
from methods.training.descent import Descent, Recipe, Step
from methods.training.loop import Conditions, train
from models.precision import Precision, widened

# Torch's `clip_grad_norm_` adds this to a norm before it divides by it.
CLIP_EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class Training:
    """One of the trainings: its model, which is trained in place, its rows, and its conditions."""

    model: nn.Module
    split: Split
    conditions: Conditions


class Stacked(nn.Module):
    """Models of one architecture as one: images (M, B, C, H, W) to logits (M, B, K).

    Parameters and buffers are stacked copies, with the M models as their first dimension.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.single = copy.deepcopy(models[0]).requires_grad_(False)  # lends its code, not its weights
        parameters, buffers = stack_module_state(list(models))
        self.names = list(parameters)
        self.weights = nn.ParameterList(
            nn.Parameter(value.detach(), value.requires_grad) for value in parameters.values()
        )
        self.state: Mapping[str, Tensor] = buffers

    def forward(self, images: Tensor) -> Tensor:
        def one(state: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.single, dict(state), (pixels,))
            return logits

        logits: Tensor = vmap(one)(self._all(), images)
        return logits

    @torch.no_grad()
    def copy_into(self, models: Sequence[nn.Module]) -> None:
        """Give each model its slice of the parameters and buffers."""
        for number, model in enumerate(models):
            for name, value in [*model.named_parameters(), *model.named_buffers()]:
                value.copy_(self._all()[name][number])

    def _all(self) -> dict[str, Tensor]:
        return {**dict(zip(self.names, self.weights, strict=True)), **self.state}


class LockStep(Meter):
    """A meter that hands out the batches of several trainings at once, (M, B, …) each.

    Every training has the batches of its own split and random streams, and its own meter counts them.
    This meter measures the seconds and the memory of all, and its progress is that of one training.
    """

    def __init__(self, trainings: Sequence[Training], whole: Meter) -> None:
        super().__init__(whole.device, progress=whole.progress)
        self.trainings = trainings
        self.places = [Place(pass_streams(each.conditions.streams)) for each in trainings]

    def batches(
        self,
        split: Split,
        size: int,
        streams: tuple[torch.Generator, ...],
        times: int = 1,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """Yield one pass over every training's own split, whose streams replace those given."""
        each = [
            one.conditions.meter.batches(one.split, size, place.generators, times, skip)
            for one, place in zip(self.trainings, self.places, strict=True)
        ]
        for batches in zip(*each, strict=True):
            yield Batch(*(torch.stack(parts) for parts in zip(*batches, strict=True)))
            self.progress.advance(len(batches[0].rows))
        for place in self.places:
            place.end_pass()

    def state_dict(self) -> State:
        costs = [asdict(each.conditions.meter.cost) for each in self.trainings]
        return {
            "whole": super().state_dict(),
            "costs": costs,
            "places": [place.state_dict() for place in self.places],
        }

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state["whole"])
        for each, cost in zip(self.trainings, state["costs"], strict=True):
            each.conditions.meter.cost = Cost(**cost)
        for place, found in zip(self.places, state["places"], strict=True):
            place.load_state_dict(found)

    def share(self) -> None:
        """Give every training an equal share of the seconds and of the peak memory."""
        for each in self.trainings:
            cost = each.conditions.meter.cost
            cost.seconds = self.cost.seconds / len(self.trainings)
            cost.peak_bytes = self.cost.peak_bytes // len(self.trainings)


def stackable(model: nn.Module, recipe: Recipe, images: Tensor) -> bool:
    """Return whether copies of a model can train together by a recipe, on such images (B, C, H, W).

    `vmap` refuses dropout and every other random draw, whose numbers could not be those of a training
    alone, and control flow that depends on the data. It skips autocast, so a recipe in bfloat16 is
    refused here, as is one that compiles.
    """
    if recipe.precision is not Precision.fp32 or recipe.compile:
        return False
    try:
        with torch.no_grad():
            Stacked([model, model])(torch.stack([images, images]))
    except RuntimeError:
        return False
    return True


def fit_together(trainings: Sequence[Training], descent: Descent, conditions: Conditions) -> None:
    """Train the models of all trainings to their ends, and log the curves of each.

    Each model sees the batches, learning rates and updates that `fit` gives it alone, up to the rounding
    of sums, and its meter has an equal share of the seconds and the memory. The models are `stackable`,
    and their splits have equal numbers of rows. `conditions` are those of the whole; its streams and its
    log are not used. Raise Diverged if the sum of the losses is NaN or infinite.
    """
    models = [each.model for each in trainings]
    stacked, meter = Stacked(models), LockStep(trainings, conditions.meter)
    whole = replace(conditions, meter=meter)
    unclipped = replace(descent, clip=None)  # the loop's clip is of one norm over all models
    with meter, conditions.checkpoint.training(meter) as checkpoint:
        split = trainings[0].split
        steps = train(stacked, split, unclipped, whole, _sum_of_means, checkpoint)
        _log_epochs(_clipped(steps, stacked, descent.clip), trainings, checkpoint)
        stacked.copy_into(models)
    meter.share()


def _sum_of_means(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over the models of their mean losses: logits (M, B, K) and labels (M, B)."""
    # Σ_m (1/B) Σ_b ℓ_mb
    return _losses(logits, labels).mean(1).sum()


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every row of every model, (M, B)."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


def _clipped(steps: Iterator[Step], stacked: Stacked, clip: float | None) -> Iterator[Step]:
    """Yield the steps, with the gradient of every model clipped to its own norm."""
    for step in steps:
        if clip is not None:
            gradients = [weight.grad for weight in stacked.weights if weight.grad is not None]
            # ‖g_m‖ over all parameters of model m: (M,)
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
            # g_m ← g_m·min(1, clip/‖g_m‖)
            factors = (clip / (norms + CLIP_EPSILON)).clamp(max=1)
            for gradient in gradients:
                gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
        yield step


def _log_epochs(steps: Iterator[Step], trainings: Sequence[Training], checkpoint: Checkpoint) -> None:
    """Take all steps, and log the points of each training as `curves` does for one."""
    so_far = Values(totals=torch.zeros(2, len(trainings)), rows=0, epoch=None, lr=0.0)
    checkpoint.add("curves", so_far)
    for step in steps:
        if so_far["epoch"] not in (None, step.epoch):
            _log_epoch(so_far, trainings)
        labels = step.batch.labels
        losses = _losses(widened(step.logits), labels).sum(1)
        right = (step.logits.argmax(2) == labels).sum(1)
        totals = so_far["totals"].to(losses) + torch.stack([losses, right])
        rows = so_far["rows"] + labels.shape[1]
        so_far.update(totals=totals, rows=rows, epoch=step.epoch, lr=step.lr)
    if so_far["epoch"] is not None:
        _log_epoch(so_far, trainings)


def _log_epoch(so_far: Values, trainings: Sequence[Training]) -> None:
    """Log the point of an epoch for each training, and begin the next."""
    # (1/n) Σ over the n rows of the epoch
    means = (so_far["totals"] / so_far["rows"]).T.tolist()
    for each, (loss, accuracy) in zip(trainings, means, strict=True):
        point = {"epoch": so_far["epoch"] + 1, "loss": loss, "accuracy": accuracy, "lr": so_far["lr"]}
        each.conditions.log(point)
    so_far.update(totals=torch.zeros_like(so_far["totals"]), rows=0, epoch=None)
