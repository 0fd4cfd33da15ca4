"""Noisy fine-tuning: drown the original in noise while the retained rows teach the model again.

Idea: steps on the retained rows, with clipped gradients and noise, make two models indistinguishable
whatever weights they began with: the original's, or those of a model that saw no forgotten row.
Update rule: x_0 = clip(θ_o, C₀). Each step of `noisy_epochs` epochs over D_r is

    x_{t+1} = x_t − γ(clip(g_t, C₁) + λx_t) + N(0, σ²I).

Then `epochs` epochs of plain descent follow. clip(v, C) = v·min(1, C/‖v‖), with the norm of all weights
together. `noisy_lr` is γ, `noisy_weight_decay` λ, `weight_norm` C₀, and `gradient_norm` C₁.
Needs: the retained rows.
Certificate: σ is the smallest that proves (`epsilon`, `delta`)-unlearning, against the same fine-tuning
from any other weights of norm C₀ or less, such as a retrained model's. No property of the loss is
assumed; the order of rows, augmentation and dropout must not depend on the forgotten rows. Null for
`epsilon` adds no noise and proves nothing.
Proof: let ρ = 1 − γλ, from 0 to 1. A step takes two runs from a distance z to ρz + 2γC₁ at most, and its
noise hides a shift a of one of them, at the price of qa²/(2σ²) in the Rényi divergence of order q
(Feldman et al. 2018, lemmas 20 and 21). With z_0 = 2C₀, z_{t+1} = ρz_t + 2γC₁ − a_{t+1} and z_T = 0 the
price of T steps is q/(2σ²)·Σ a_t², and by Cauchy-Schwarz it is smallest for a_t ∝ ρ^(T−t):

    D_q = qμ²/2,  μ² = Δ²/(σ²S),  Δ = 2C₀ρ^T + 2γC₁·Σ_{s<T} ρ^s,  S = Σ_{s<T} ρ^(2s).

No z_t is negative then: z_t/ρ^t first rises, and then falls to its end at 0. D_q proves
ε = D_q + ln(1/δ)/(q − 1) (Mironov 2017), which is smallest for q = 1 + √(2 ln(1/δ))/μ:

    ε = μ²/2 + μ·√(2 ln(1/δ)).

D_q is attained in one dimension, by gradients that drive two runs apart. Plain descent sees the result
and the retained rows alone, so it costs nothing.
Differs from the paper: its theorem bounds the same sums more loosely. Its one-cycle schedule is here a
warm-up and a cosine.
Reference: Koloskova et al., Certified Unlearning for Neural Networks, ICML 2025 (arXiv 2506.06985);
Feldman et al., Privacy Amplification by Iteration, FOCS 2018; Mironov, Rényi Differential Privacy, 2017.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import nn

from data.bounds import EPOCHS, INSIDE_SHARE, POSITIVE, RATE
from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.training.descent import Descent, Optimizer, Schedule, Step
from methods.training.loop import Phase, curves, of_phase
from methods.weights.certificate import CERTIFICATE, add_noise, certify
from methods.weights.layers import refuse_batch_norm


@dataclass(frozen=True)
class NoisyFinetune(Descent, Method):
    """The fields of `Descent` are those of the plain descent; both parts share its `batch_size`.
    `weight_norm` and `gradient_norm` may be null, for no clipping, if `epsilon` is."""

    kind: ClassVar[str] = "methods.noisy_finetune.NoisyFinetune"
    access: ClassVar[Access] = Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = (*CERTIFICATE, *of_phase("plain"))
    noisy_epochs: Annotated[int, EPOCHS]
    noisy_lr: Annotated[float, POSITIVE]
    noisy_weight_decay: Annotated[float, RATE]
    weight_norm: Annotated[float, POSITIVE] | None
    gradient_norm: Annotated[float, POSITIVE] | None
    epsilon: Annotated[float, POSITIVE] | None
    delta: Annotated[float, INSIDE_SHARE]

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        if self.noisy_lr * self.noisy_weight_decay > 1:
            raise UserError(
                f"{option}.noisy_lr={self.noisy_lr:g} overshoots with {option}.noisy_weight_decay="
                f"{self.noisy_weight_decay:g}: their product must be at most 1"
            )
        clipped = self.weight_norm is not None and self.gradient_norm is not None
        if self.epsilon is not None and not (clipped and self.noisy_epochs):
            raise UserError(
                f"a certificate needs noisy steps that are clipped: set {option}.noisy_epochs, "
                f"{option}.weight_norm and {option}.gradient_norm, or {option}.epsilon=null"
            )

    def idle(self) -> Mapping[str, str]:
        if self.epsilon is not None:
            return super().idle()
        found = {**super().idle(), "delta": "epsilon=null certifies nothing"}
        if not self.noisy_epochs:
            noisy = ("noisy_lr", "noisy_weight_decay", "gradient_norm")
            found |= dict.fromkeys(noisy, "noisy_epochs=0 takes no noisy step")
        return found

    def check(self, facts: Facts) -> None:
        if self.epsilon is not None:
            refuse_batch_norm(facts.outline())  # its statistics are no weights, and receive no noise

    def spread(self, steps: int) -> float:
        """Return Δ/√S after this number of noisy steps, at least one: μ is this, divided by σ."""
        assert self.weight_norm is not None and self.gradient_norm is not None
        # ρ^s for s = T − 1 … 0
        ratio = 1 - self.noisy_lr * self.noisy_weight_decay
        powers = ratio ** np.arange(steps, dtype=np.float64)
        # Δ = 2C₀ρ^T + 2γC₁·Σ ρ^s and S = Σ ρ^(2s)
        distance = 2 * self.weight_norm * ratio**steps
        distance += 2 * self.noisy_lr * self.gradient_norm * float(powers.sum())
        return distance / math.sqrt(float((powers**2).sum()))

    def deviation(self, steps: int) -> float:
        """Return the smallest σ that proves ε and δ in this number of noisy steps, or 0 for no noise."""
        if self.epsilon is None:
            return 0.0
        # ε = μ²/2 + μ√(2 ln(1/δ)), solved for μ: √(2 ln(1/δ) + 2ε) − √(2 ln(1/δ)), without cancellation
        doubled = 2 * math.log(1 / self.delta)
        mu = 2 * self.epsilon / (math.sqrt(doubled + 2 * self.epsilon) + math.sqrt(doubled))
        return self.spread(steps) / mu

    def proved(self, steps: int, deviation: float) -> float:
        """Return the ε that noise of this deviation proves in this number of noisy steps."""
        mu = self.spread(steps) / deviation
        return mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / self.delta))

    def unlearn(self, problem: Problem) -> nn.Module:
        model, retain, conditions = problem.model, problem.retain, problem.conditions
        conditions.meter.progress.expect((self.noisy_epochs + self.epochs) * len(retain))
        planned = self.noisy_epochs * math.ceil(len(retain) / self.batch_size)
        deviation = self.deviation(planned)
        steps = sum(1 for _ in curves(self.noisy_steps(problem, deviation), conditions.log))
        if deviation and steps:  # the budget may have ended some steps early
            claim = (
                "against the same fine-tuning from any other weights, such as a retrained model's; the "
                "row order, augmentation and dropout must not depend on the forgotten rows"
            )
            certify(self.proved(steps, deviation), self.delta, deviation, claim, conditions.log)
        plain = Phase(model, retain, self, conditions, name="plain")
        for epoch in range(self.epochs):
            plain.run(epoch)
        return model

    def noisy_steps(self, problem: Problem, deviation: float) -> Iterator[Step]:
        """Yield the steps of the noisy fine-tuning, from the clipped weights."""
        model, rng = problem.model, problem.conditions.streams("noise")
        if self.weight_norm is not None:
            clip_weights(model, self.weight_norm)
        # x ← x − γ(clip(g, C₁) + λx)
        descent = replace(
            self, lr=self.noisy_lr, weight_decay=self.noisy_weight_decay, clip=self.gradient_norm,
            optimizer=Optimizer.sgd, momentum=0.0, schedule=Schedule.constant, warmup=0.0,
        )  # fmt: skip
        phase = Phase(model, problem.retain, descent, problem.conditions)
        # + N(0, σ²I), before the next forward pass
        phase.optimizer.register_step_post_hook(lambda *_: add_noise(model, deviation, rng))
        for epoch in range(self.noisy_epochs):
            yield from phase.steps(epoch)


@torch.no_grad()
def clip_weights(model: nn.Module, norm: float) -> None:
    """Scale all parameters together so that their norm is at most `norm`."""
    # θ ← θ·min(1, C₀/‖θ‖)
    size = torch.stack([parameter.double().square().sum() for parameter in model.parameters()]).sum()
    scale = min(1.0, norm / max(float(size.sqrt()), 1e-12))
    for parameter in model.parameters():
        parameter.mul_(scale)
