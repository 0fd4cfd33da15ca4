"""DiStruction: unlearn while the weights stay where their distribution allows it.

Idea: a Gaussian around the original's weights, learned before the data was discarded, stands for the
retained rows. Weights that the training rows determine closely may hardly move.
Update rule: min over q of (1−λ)·E_{θ~q} Σ_{x∈b} U(f_θ(x)) + λ·KL(q‖p), from q = p = N(θ_o, diag σ²),
batch by batch over D_f; the result is q's mean. G = (1−λ)·E[∂U/∂θ] and H = (1−λ)·E[∂U/∂θ ∘ ε] are
estimated from `samples` draws. `penalty` is λ, `eta` is η.
`step: proximal` minimises the linearised objective, with KL(q'‖q) as the trust region of each step:
μ' = (σ⁻²μ + λσ_p⁻²μ_p − ηG)/A and σ' = (−H + √(H² + 4A(1+λ)))/(2A) with A = σ⁻² + λσ_p⁻².
`step: explicit` takes a step of Bayesian gradient descent (μ − ησ²G, and its σ), then a step of rate
`pull_rate` down λ·KL. The second step is stiff: it is stable only for pull_rate·λ/σ_p² < 2.
Objectives U: `entropy` is −H(p_θ(x)); `ascent` is −CE; `random_labels` is CE with wrong labels that are
drawn once; `bad_teacher` is KL(p_random(x) ‖ p_θ(x)) with p_random a randomly initialised model.
Needs: the forgotten rows and the record of `recorder=bayesian`; no retained row.
Differs from the paper: its ∂KL/∂μ has the wrong sign and its σ step a misplaced term (see
`methods.weights.gaussian`). It gives neither U, λ, rates and numbers of steps, nor the way in which the
two terms are stepped. The proximal step is this project's, and equals BGD at λ = 0. A wrong label may be
another forgotten class, since the retained classes are unknown. `kl` and `objective` (mean per row) are
logged at every step.
Reference: paper 001 (Dugue, Machine Unlearning Without Repair using DiStruction, 2024).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import COUNT, EPOCHS, ROUNDS, SHARE, STRENGTH
from data.split import Batch
from methods.base import Access, Method, Problem
from methods.families.distillation import Teacher
from methods.recording.bayesian import Bayesian, deviation_of
from methods.recording.recorder import Recorder
from methods.training.cost import pass_streams
from methods.training.divergence import Diverged
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

# From a batch to a function from its logits (B, K) to the sum of its rows' objectives U.
Objective = Callable[[Batch], Callable[[Tensor], Tensor]]


class StepRule(Enum):
    """The update of q: one proximal step, or a step down each term."""

    explicit = "explicit"
    proximal = "proximal"


class Unlearning(Enum):
    """The objective U on the forgotten rows."""

    entropy = "entropy"
    ascent = "ascent"
    random_labels = "random_labels"
    bad_teacher = "bad_teacher"


@dataclass(frozen=True)
class DiStruction(Method):
    kind: ClassVar[str] = "methods.distruction.DiStruction"
    access: ClassVar[Access] = Access.FORGET
    version: ClassVar[int] = 2  # 1 began the random teacher at a file of weights, if there was one
    records: ClassVar[type[Recorder] | None] = Bayesian
    logs: ClassVar[tuple[str, ...]] = ("step", "kl", "objective")
    makes_passes: ClassVar[bool] = True
    objective: Unlearning
    step: StepRule
    epochs: Annotated[int, EPOCHS]
    batch_size: Annotated[int, COUNT]
    samples: Annotated[int, ROUNDS]
    penalty: Annotated[float, SHARE]
    eta: Annotated[float, STRENGTH]
    pull_rate: Annotated[float, STRENGTH]

    def idle(self) -> Mapping[str, str]:
        found = {"eta": "penalty=1 leaves the objective out"} if self.penalty == 1 else {}
        if self.penalty == 0:
            found["pull_rate"] = "penalty=0 multiplies it"
        elif self.step is StepRule.proximal:
            found["pull_rate"] = "step=proximal takes no step of its own down the penalty"
        return found

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model.eval(), problem.conditions
        objective = _OBJECTIVES[self.objective](problem)
        recorded = deviation_of(problem.recording)
        mean = {name: value.detach().clone() for name, value in model.named_parameters()}
        # p = N(θ_o, diag σ²), and q begins as p
        p = Gaussian(mean, {name: recorded[name].to(mean[name].device) for name in mean})
        q = p.copy()
        passes, noise = pass_streams(conditions.streams), conditions.streams("noise")
        conditions.meter.progress.expect(self.epochs * len(problem.forget))
        number = 0
        for _ in range(self.epochs):
            for batch in conditions.meter.batches(
                problem.forget, self.batch_size, passes, times=self.samples
            ):
                # E_{θ~q} Σ_{x∈b} U(f_θ(x)) and its moments, from `samples` draws of θ
                loss = _BatchObjective(model, batch.images, objective(batch), conditions.bf16)
                found = moments(model, q, loss, self.samples, noise)
                found.scale(1 - self.penalty)  # G and H are those of (1−λ)·U
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
                del found  # frees two copies of the model, which the next batch makes again
            q.put_mean(model)
            conditions.passed(model)
        return model


@dataclass(frozen=True)
class _BatchObjective:
    """The sum of a batch's objectives U, a scalar, under the model's present weights."""

    model: nn.Module
    images: Tensor
    objective: Callable[[Tensor], Tensor]
    bf16: bool

    def __call__(self) -> Tensor:
        with autocast(self.bf16, self.images.device):
            logits = self.model(self.images)
        return self.objective(logits.float())


def proximal(method: DiStruction, q: Gaussian, p: Gaussian, found: Moments) -> None:
    """Move q to q', the minimum of KL(q'‖q) + λ·KL(q'‖p) + ηG·μ' + H·σ'."""
    penalty = method.penalty

    def step(
        mean: Tensor, deviation: Tensor, around: Tensor, recorded: Tensor, g: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        # The equations are multiplied by σ²: with r = λσ²/σ_p² the terms Aσ² = 1 + r and Hσ are of
        # the order of 1, while A and H can leave the range of float32.
        variance = deviation.square()
        held = penalty * variance / recorded.square()  # r
        # μ' = (σ⁻²μ + λσ_p⁻²μ_p − ηG)/A = μ + (r(μ_p − μ) − ησ²G)/(1 + r)
        moved = mean + (held * (around - mean) - method.eta * variance * g) / (1 + held)
        # σ' = (−H + √(H² + 4A(1+λ)))/(2A) = σ·(√(h² + (1 + r)(1 + λ)) − h)/(1 + r) with h = σH/2
        half = deviation * h / 2
        spread = ((1 + held) * (1 + penalty)).sqrt()
        root = torch.hypot(half, spread)
        # For h > 0 the difference cancels. (√ − h)(√ + h) = (1 + r)(1 + λ) turns it into a quotient.
        factor = torch.where(half > 0, (1 + penalty) / (root + half), (root - half) / (1 + held))
        return moved, deviation * factor

    q.move(step, p.mean, p.deviation, found.gradient, found.product)


def explicit(method: DiStruction, q: Gaussian, p: Gaussian, found: Moments) -> None:
    """Move q by a step of Bayesian gradient descent, then by a step down the gradient of λ·KL(q‖p)."""
    rate = method.pull_rate * method.penalty

    def step(
        mean: Tensor, deviation: Tensor, around: Tensor, recorded: Tensor, g: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        # BGD: μ ← μ − ησ²G, and its σ
        mean = mean - method.eta * deviation.square() * g
        deviation = descended_deviation(deviation, h)
        # μ ← μ − pull_rate·λ·∂KL/∂μ, and σ likewise
        of_mean, of_deviation = pull(mean, deviation, around, recorded)
        return mean - rate * of_mean, (deviation - rate * of_deviation).clamp(min=FLOOR)

    q.move(step, p.mean, p.deviation, found.gradient, found.product)


def _entropy(problem: Problem) -> Objective:
    def negative_entropy(logits: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, 1)
        return (log_p.exp() * log_p).sum()  # −H = Σ p·ln p

    return lambda batch: negative_entropy


def _ascent(problem: Problem) -> Objective:
    return lambda batch: lambda logits: -F.cross_entropy(logits, batch.labels, reduction="sum")


def _random_labels(problem: Problem) -> Objective:
    own, rng = problem.forget.labels, problem.conditions.streams("labels")
    # (y + shift) mod K with a shift of 1 to K − 1 is uniform over the other classes.
    shift = torch.randint(1, problem.classes, own.shape, generator=rng)
    # by ascending row number, so that a batch finds its labels by binary search
    rows, where = problem.forget.rows.sort()
    wrong = ((own + shift.to(own)) % problem.classes)[where]

    def objective(batch: Batch) -> Callable[[Tensor], Tensor]:
        labels = wrong[torch.searchsorted(rows, batch.rows)]
        return lambda logits: F.cross_entropy(logits, labels, reduction="sum")

    return objective


def _bad_teacher(problem: Problem) -> Objective:
    conditions = problem.conditions
    teacher = Teacher(problem.randomly_initialised(conditions.streams), conditions)

    def objective(batch: Batch) -> Callable[[Tensor], Tensor]:
        answer = teacher(batch.images).softmax(1)
        # KL(p_random ‖ p_θ) = Σ_rows Σ_k p_k (log p_k − log q_k)
        return lambda logits: F.kl_div(F.log_softmax(logits, 1), answer, reduction="sum")

    return objective


_STEPS = {StepRule.explicit: explicit, StepRule.proximal: proximal}
_OBJECTIVES: dict[Unlearning, Callable[[Problem], Objective]] = {
    Unlearning.entropy: _entropy,
    Unlearning.ascent: _ascent,
    Unlearning.random_labels: _random_labels,
    Unlearning.bad_teacher: _bad_teacher,
}
