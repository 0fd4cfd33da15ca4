"""The time that the forms take, measured on the first rows before the training begins."""

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from methods.recording.per_sample.packing import Packer
from methods.recording.per_sample.ring import Ring
from methods.recording.recorder import RecordedTraining
from methods.training.cost import now
from methods.training.descent import Step
from methods.weights.per_sample_gradients import Capture, Factors
from models.precision import Precision, autocast, widened

# Rows that are measured, and repetitions, of which the fastest counts.
ROWS, TIMES = 32, 3

# Seconds that a coarse clock may show as none.
RESOLUTION = 1e-6


def times_a_plain_step(training: RecordedTraining, packers: list[Packer]) -> list[float]:
    """Return the time of a step with each packer's arithmetic, relative to a step without.

    The time of the disk is left out: another thread writes. A copy of the model is measured, in
    evaluation mode, so that no weight and no random stream changes.
    """
    step, taken, plain = _step_of(training)
    plain = max(plain, RESOLUTION)
    return [1 + _seconds(packer, step, taken) / plain for packer in packers]


def _step_of(training: RecordedTraining) -> tuple[Step, Mapping[str, list[Factors]], float]:
    """Return a step, its factors, and the seconds of its passes."""
    recipe, model = training.recipe, copy.deepcopy(training.model).eval()
    batch = next(training.split.batches(min(ROWS, recipe.batch_size)))
    device, fastest = batch.images.device, math.inf
    with Capture(model) as capture:
        for _ in range(TIMES):
            started = now(device)
            with autocast(recipe.precision is Precision.bf16, device):
                logits = model(batch.images)
                loss = F.cross_entropy(widened(logits), batch.labels)
            loss.backward()
            fastest = min(fastest, now(device) - started)
            taken = capture.take()
    optimizer = recipe.optimizer_for(model)
    return Step(0, 0, batch, logits, loss, 0.0, model, optimizer), taken, fastest


def _seconds(packer: Packer, step: Step, taken: Mapping[str, list[Factors]]) -> float:
    """Return the seconds of packing a step of which every row is tracked."""
    rows, device, fastest = len(step.batch.rows), step.batch.images.device, math.inf
    lease = Ring(packer.layout, packer.dtype, rows, device).take(0, rows)
    for _ in range(TIMES):
        started = now(device)
        packer.pack(step, taken, slice(None), torch.arange(rows), lease.packed)
        lease.land()()
        fastest = min(fastest, now(device) - started)
    return fastest
