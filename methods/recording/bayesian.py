"""Bayesian: how far each weight can move before the loss of the training rows rises.

Idea: a Gaussian around the trained weights stands for the retained rows, which a later request may not
see.
Record: σ of q = N(θ_o, diag σ²), one number per weight, in `deviation.safetensors`. After the training,
Bayesian gradient descent passes over the training rows with the mean frozen at the trained weights θ_o.
For each batch it estimates H = E[∂L/∂θ ∘ ε] from `samples` draws θ = θ_o + σ∘ε, where L is the sum of
the batch's losses. Then σ ← σ√(1 + (σH/2)²) − ½σ²H. For a quadratic loss of curvature h and a small σ²h
this adds h to the precision: 1/σ² ← 1/σ² + h. So σ shrinks with every step and does not converge: the
result depends on `epochs` and `initial`.
Size: as large as the model. Costs `samples`·`epochs` gradients of every row (counted in `about.json`).
The training itself is unchanged: the passes run on a copy of the model, after the last step, and draw
from separate random streams.
Differs from the paper: its eq. 1 has the second term inside the root, and the square inside the
expectation. The paper's mean can drift; here it is frozen, because unlearning starts from θ_o. Rows are
shuffled but not augmented, and the model is in evaluation mode, so that only the weights are random.
Reference: paper 001 (DiStruction), section 3.1; Zeno et al. 2018 (10 samples, σ₀ 0.02, batches of
128).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from data.bounds import COUNT, POSITIVE, ROUNDS
from data.disk import save_tensors
from data.split import Batch
from methods.recording.recorder import RecordedTraining, Recorder, close_record
from methods.training.checkpoint import Place, State
from methods.training.descent import Step
from methods.training.divergence import Diverged
from methods.weights.gaussian import Gaussian, descended_deviation, moments
from methods.weights.layers import without_hooks
from models.precision import Precision, autocast

DEVIATION = "deviation.safetensors"


@dataclass(frozen=True)
class Bayesian(Recorder):
    """`initial` is the standard deviation of every weight at the beginning, and `samples` the number of
    draws of the weights per batch. `classes` and `rows` restrict the requests; all rows shape σ."""

    kind: ClassVar[str] = "methods.recorders.bayesian.Bayesian"
    goes_on: ClassVar[bool] = True
    passes_after_training: ClassVar[bool] = True

    epochs: Annotated[int, ROUNDS]
    batch_size: Annotated[int, COUNT]
    samples: Annotated[int, ROUNDS]
    initial: Annotated[float, POSITIVE]

    def estimated_bytes(self, training: RecordedTraining, tracked: Tensor | None = None) -> int:
        return training.parameters * 4

    def cures(self, training: RecordedTraining, free: int, option: str) -> Iterator[str]:
        yield from ()  # no setting changes the size, one number per weight

    def watch(self, steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
        yield from steps
        deviation = self.deviation(training)
        found = {name: value.cpu().contiguous() for name, value in deviation.items()}
        with self.writer(training.folder) as writer:
            writer.do(partial(save_tensors, found, training.folder / DEVIATION))
        about = json.dumps({"gradient_examples": self.samples * self.epochs * len(training.split)})
        close_record(writer, training.folder, about, self.index(training.split))

    def deviation(self, training: RecordedTraining) -> dict[str, Tensor]:
        """Return σ by parameter name, after `epochs` passes over the training rows.

        Raise Diverged if a deviation is not finite.
        """
        model = without_hooks(training.model).eval()
        mean = {name: value.detach().clone() for name, value in model.named_parameters()}
        # q = N(θ_o, initial²·I)
        q = Gaussian(mean, {name: torch.full_like(mean[name], self.initial) for name in mean})
        order, noise = training.streams("order"), training.streams("noise")
        bf16 = training.recipe.precision is Precision.bf16
        descent = _Descent(Place((order,)), q, noise)
        training.keep(descent, late=True)
        for _ in range(descent.place.epoch, self.epochs):
            batches = training.split.batches(self.batch_size, order)
            for batch in islice(batches, descent.place.taken, None):
                # H = E[∂L/∂θ ∘ ε], then σ ← σ√(1 + (σH/2)²) − ½σ²H; the mean stays at θ_o.
                loss = _BatchLoss(model, batch, bf16)
                found = moments(model, descent.q, loss, self.samples, noise).product
                old = descent.q.deviation
                new = {name: descended_deviation(old[name], found[name]) for name in mean}
                descent.q = Gaussian(mean, new)
                descent.place.end_step()
                training.checkpoint.step_ended()
            descent.place.end_pass()
        q = descent.q
        if not all(value.isfinite().all() for value in q.deviation.values()):
            raise Diverged("the deviations are no longer finite: set the recorder's initial lower")
        return dict(q.deviation)


@dataclass
class _Descent:
    """The passes after the training, as a part of its state: the place, and the Gaussian so far."""

    place: Place
    q: Gaussian
    noise: torch.Generator

    def state_dict(self) -> State:
        noise = self.noise.get_state()
        return {"place": self.place.state_dict(), "deviation": self.q.deviation, "noise": noise}

    def load_state_dict(self, state: State) -> None:
        self.place.load_state_dict(state["place"])
        self.noise.set_state(state["noise"])
        there = {name: value.to(self.q.mean[name]) for name, value in state["deviation"].items()}
        self.q = Gaussian(self.q.mean, there)


@dataclass(frozen=True)
class _BatchLoss:
    """The sum of a batch's losses under the model's present weights.

    It is a sum and not a mean because the log-likelihoods of rows add up in Bayes' rule.
    """

    model: nn.Module
    batch: Batch
    bf16: bool

    def __call__(self) -> Tensor:
        with autocast(self.bf16, self.batch.images.device):
            logits = self.model(self.batch.images)
        return F.cross_entropy(logits.float(), self.batch.labels, reduction="sum")


def deviation_of(folder: Path) -> dict[str, Tensor]:
    """Return the recorded σ by parameter name, float32 on the CPU."""
    return load_file(folder / DEVIATION)
