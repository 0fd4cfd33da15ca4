"""DiStruction: unlearn while the weights stay where their distribution allows it.

Idea: a Gaussian around the original's weights, learned before the data was discarded, stands for the
rows to retain: weights that the training rows held tightly may hardly move.
Update rule: min over q of (1−λ)·E_{θ~q} Σ_{x∈b} U(f_θ(x)) + λ·KL(q‖p), from q = p = N(θ_o, diag σ²),
batch by batch over D_f; the result is q's mean. G and H are (1−λ)·E[∂U/∂θ] and (1−λ)·E[∂U/∂θ ∘ ε],
from `samples` draws. `step: proximal` solves each step's linearised problem with KL(q'‖q) as its trust
region: with A = σ⁻² + λσ_p⁻², μ' = (σ⁻²μ + λσ_p⁻²μ_p − ηG)/A, σ' = (−H + √(H² + 4A(1+λ)))/(2A). `step:
explicit` takes a step of Bayesian gradient descent (μ − ησ²G, and its σ), then one of rate `pull_rate`
down λ·KL; that is stiff, stable only for pull_rate·λ/σ_p² < 2. `penalty` is λ, `eta` η. Objectives U:
`entropy`, −H(p_θ(x)); `ascent`, −CE; `random_labels`, CE of wrong labels drawn once; `bad_teacher`, KL
to an untrained model's answer.
Needs: the forgotten rows and the record of `recorder=bayesian`; no retained row is seen.
Differs from the paper: its ∂KL/∂μ has the wrong sign and its σ step a misplaced term (see
`methods.gaussian`); which U, λ, rates and numbers of steps it used it does not say, nor how the two
terms are stepped: the proximal step is this project's, BGD exactly at λ = 0. Wrong labels may be those
of another forgotten class, since what is retained is unknown. `kl` and `objective` (mean per row) are
logged at every step.
Reference: paper 001 (Dugue, Machine Unlearning Without Repair using DiStruction, 2024).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.split import Batch
from methods.base import Access, Facts, Method, Problem
from methods.recording.bayesian import Bayesian, deviation_of
from methods.recording.recorder import Recorder
from methods.training.checks import at_least_one, batch_fits, zero_or_more, zero_to_one
from methods.training.cost import pass_streams
from methods.training.loop import Diverged
from methods.weights.gaussian import (
    FLOOR,
    Gaussian,
    Moments,
    descended_deviation,
    divergence,
    moments,
    pull,
)
from models.precision import autocast

# Of a batch: from logits (B, K) to the sum of its rows' objectives.
Objective = Callable[[Batch], Callable[[Tensor], Tensor]]


class StepRule(Enum):
    explicit = "explicit"
    proximal = "proximal"


class Unlearning(Enum):
    entropy = "entropy"
    ascent = "ascent"
    random_labels = "random_labels"
    bad_teacher = "bad_teacher"


@dataclass(frozen=True)
class DiStruction(Method):
    kind: ClassVar[str] = "methods.distruction.DiStruction"
    access: ClassVar[Access] = Access.FORGET
    version: ClassVar[int] = 2  # 1 took a file of weights, where there was one, for a random teacher
    records: ClassVar[type[Recorder] | None] = Bayesian
    objective: Unlearning
    step: StepRule
    epochs: int
    batch_size: int
    samples: int
    penalty: float
    eta: float
    pull_rate: float

    def check_parameters(self, option: str) -> None:
        zero_or_more(option, self, "epochs", "eta", "pull_rate")
        at_least_one(option, self, "batch_size", "samples")
        zero_to_one(option, self, "penalty")

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.forget, "the part to forget")

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model.eval(), problem.conditions
        objective = _OBJECTIVES[self.objective](problem)
        recorded = deviation_of(problem.recording)
        mean = {name: value.detach().clone() for name, value in model.named_parameters()}
        p = Gaussian(mean, {name: recorded[name].to(mean[name].device) for name in mean})
        q = p.copy()
        passes, noise = pass_streams(conditions.streams), conditions.streams("noise")
        conditions.meter.progress.expect(self.epochs * len(problem.forget))
        number = 0
        for _ in range(self.epochs):
            for batch in conditions.meter.batches(
                problem.forget, self.batch_size, passes, times=self.samples
            ):
                loss = _Loss(model, batch.images, objective(batch), conditions.bf16)
                found = moments(model, q, loss, self.samples, noise)
                found.scale(1 - self.penalty)
                _STEPS[self.step](self, q, p, found)
                kl = divergence(q, p).item()
                shown = found.loss.item() / len(batch.rows)
                if not (math.isfinite(kl) and math.isfinite(shown)):
                    raise Diverged(
                        f"the divergence became {kl} and the objective {shown} at step {number}: lower "
                        "method.eta or method.pull_rate, raise method.penalty, or choose another "
                        "method.objective"
                    )
                conditions.log({"step": number, "kl": kl, "objective": shown})
                number += 1
                del found  # two copies of the model, which the next batch makes again
            q.put_mean(model)
            conditions.passed(model)
        return model


@dataclass(frozen=True)
class _Loss:
    """The sum of a batch's objectives under the weights of the moment."""

    model: nn.Module
    images: Tensor
    objective: Callable[[Tensor], Tensor]
    bf16: bool

    def __call__(self) -> Tensor:
        with autocast(self.bf16, self.images.device):
            logits = self.model(self.images)
        return self.objective(logits.float())


def proximal(method: DiStruction, q: Gaussian, p: Gaussian, found: Moments) -> None:
    """Moves q to the minimum of KL(q'‖q) + λ·KL(q'‖p) + the linearised objective."""
    kappa = method.penalty

    def step(
        mean: Tensor, deviation: Tensor, around: Tensor, recorded: Tensor, g: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        # A and H in units of 1/σ² and 1/σ: the numbers stay near 1
        variance = deviation.square()
        held = kappa * variance / recorded.square()
        moved = mean + (held * (around - mean) - method.eta * variance * g) / (1 + held)
        half = deviation * h / 2
        spread = ((1 + held) * (1 + kappa)).sqrt()
        root = torch.hypot(half, spread)
        # (root − half)/(1 + held), without the difference of near numbers for half > 0
        factor = torch.where(half > 0, (1 + kappa) / (root + half), (root - half) / (1 + held))
        return moved, deviation * factor

    q.move(step, p.mean, p.deviation, found.gradient, found.product)


def explicit(method: DiStruction, q: Gaussian, p: Gaussian, found: Moments) -> None:
    """Moves q by a step of Bayesian gradient descent, then by one down the gradient of λ·KL(q‖p)."""

    rate = method.pull_rate * method.penalty

    def step(
        mean: Tensor, deviation: Tensor, around: Tensor, recorded: Tensor, g: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        mean = mean - method.eta * deviation.square() * g
        deviation = descended_deviation(deviation, h)
        of_mean, of_deviation = pull(mean, deviation, around, recorded)
        return mean - rate * of_mean, (deviation - rate * of_deviation).clamp(min=FLOOR)

    q.move(step, p.mean, p.deviation, found.gradient, found.product)


def _entropy(problem: Problem) -> Objective:
    def negative_entropy(logits: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, 1)
        return (log_p.exp() * log_p).sum()

    return lambda batch: negative_entropy


def _ascent(problem: Problem) -> Objective:
    return lambda batch: lambda logits: -F.cross_entropy(logits, batch.labels, reduction="sum")


def _random_labels(problem: Problem) -> Objective:
    own, rng = problem.forget.labels, problem.conditions.streams("labels")
    shift = torch.randint(1, problem.classes, own.shape, generator=rng)
    rows, where = problem.forget.rows.sort()
    wrong = ((own + shift.to(own)) % problem.classes)[where]  # uniform over the other classes

    def objective(batch: Batch) -> Callable[[Tensor], Tensor]:
        labels = wrong[torch.searchsorted(rows, batch.rows)]
        return lambda logits: F.cross_entropy(logits, labels, reduction="sum")

    return objective


def _bad_teacher(problem: Problem) -> Objective:
    teacher = problem.randomly_initialised(problem.conditions.streams).eval()

    def objective(batch: Batch) -> Callable[[Tensor], Tensor]:
        with torch.no_grad(), autocast(problem.conditions.bf16, batch.images.device):
            answer = teacher(batch.images).float().softmax(1)
        problem.conditions.meter.count_forward(len(batch.rows))
        return lambda logits: F.kl_div(F.log_softmax(logits, 1), answer, reduction="sum")

    return objective


_STEPS = {StepRule.explicit: explicit, StepRule.proximal: proximal}
_OBJECTIVES: dict[Unlearning, Callable[[Problem], Objective]] = {
    Unlearning.entropy: _entropy,
    Unlearning.ascent: _ascent,
    Unlearning.random_labels: _random_labels,
    Unlearning.bad_teacher: _bad_teacher,
}
