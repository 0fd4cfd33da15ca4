"""Bayesian: how far each weight can move before the training rows notice, learned after the training.

Idea: what a later request may not see (the rows to retain) is kept as a Gaussian around the weights.
Record: σ of q = N(θ_o, diag σ²), one number per weight, `deviation.safetensors`. Bayesian gradient
descent goes over the watched rows with the mean frozen at the trained weights: for each batch H =
E[∂L/∂θ ∘ ε] from `samples` draws θ = θ_o + σ∘ε, L the sum of the batch's losses, then σ ← σ√(1 +
(σH/2)²) − ½σ²H. On a quadratic this adds the curvature to the precision, 1/σ² ← 1/σ² + h: σ shrinks
with every step and never settles, so `epochs` and `initial` are part of the result.
Size: as large as the model. Costs `samples`·`epochs` gradients of every row (`about.json` says how
many). The training itself is not touched: the passes run on a copy, after the last step, and draw from
streams of their own.
Differs from the paper: its eq. 1 has the second term inside the root, and the square inside the
expectation; its mean could drift, and is frozen here, as θ_o is what must come back. Rows are shuffled
but not augmented, and the model is in evaluation mode: only the weights are random.
Reference: paper 001 (DiStruction), section 3.1; Zeno et al. 2018 (10 samples, σ₀ 0.02, batches of
128).
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.split import Batch
from methods.recording.recorder import RecordedTraining, Recorder, close_record
from methods.training.checks import above_zero, at_least_one
from methods.training.descent import Step
from methods.training.loop import Diverged
from methods.weights.gaussian import Gaussian, descended_deviation, moments
from models.precision import Precision, autocast

DEVIATION = "deviation.safetensors"


@dataclass(frozen=True)
class Bayesian(Recorder):
    """`initial` is the deviation of every weight at the beginning, `samples` the draws of the weights
    per batch. `classes` restrict what can be asked to be forgotten; all rows shape σ."""

    kind: ClassVar[str] = "methods.recorders.bayesian.Bayesian"

    epochs: int
    batch_size: int
    samples: int
    initial: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        at_least_one(option, self, "epochs", "batch_size", "samples")
        above_zero(option, self, "initial")

    def estimated_bytes(self, watched: RecordedTraining) -> int:
        return watched.parameters * 4

    def smaller(self, option: str) -> str:
        return "choose a smaller model (model=…)"

    def watch(self, steps: Iterator[Step], watched: RecordedTraining) -> Iterator[Step]:
        yield from steps
        deviation = self.deviation(watched)
        found = {name: value.cpu().contiguous() for name, value in deviation.items()}
        with self.writer(watched.folder) as writer:
            writer.do(partial(save_file, found, watched.folder / DEVIATION))
        about = json.dumps({"gradient_examples": self.samples * self.epochs * len(watched.split)})
        close_record(writer, watched.folder, about, self.index(watched.split))

    def deviation(self, watched: RecordedTraining) -> dict[str, Tensor]:
        """σ by parameter name, after `epochs` passes over the watched rows."""
        model = _copied(watched.model).eval()
        mean = {name: value.detach().clone() for name, value in model.named_parameters()}
        q = Gaussian(mean, {name: torch.full_like(mean[name], self.initial) for name in mean})
        order, noise = watched.streams("order"), watched.streams("noise")
        bf16 = watched.recipe.precision is Precision.bf16
        for _ in range(self.epochs):
            for batch in watched.split.batches(self.batch_size, order):
                found = moments(model, q, _Loss(model, batch, bf16), self.samples, noise)
                deviation = {
                    name: descended_deviation(q.deviation[name], found.product[name]) for name in mean
                }
                q = Gaussian(mean, deviation)
        if not all(value.isfinite().all() for value in q.deviation.values()):
            raise Diverged("the deviations are no longer finite: set the recorder's initial lower")
        return dict(q.deviation)


@dataclass(frozen=True)
class _Loss:
    """The sum of a batch's losses under the weights of the moment: Bayes' rule adds rows up."""

    model: nn.Module
    batch: Batch
    bf16: bool

    def __call__(self) -> Tensor:
        with autocast(self.bf16, self.batch.images.device):
            logits = self.model(self.batch.images)
        return F.cross_entropy(logits.float(), self.batch.labels, reduction="sum")


def _copied(model: nn.Module) -> nn.Module:
    """A copy that other recorders' hooks do not see."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module._forward_hooks.clear()
    return twin


def deviation_of(folder: Path) -> dict[str, Tensor]:
    """σ by parameter name, float32 on the CPU, as recorded."""
    return load_file(folder / DEVIATION)
