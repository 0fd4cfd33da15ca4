"""The coefficient c_t of every step: the share of its gradient in the final weights."""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from methods.training.descent import Recipe, Step


class Attribution(Enum):
    """The rule for c_t, the coefficient of a step's gradient: see the package's docstring."""

    exact = "exact"
    step = "step"
    preconditioned = "preconditioned"


@dataclass(frozen=True)
class Shares:
    """`each` is c_t of every step. `beginning` is A, the part of the initial weights that is left."""

    each: list[float]
    beginning: float


def coefficients(recipe: Recipe, rows: int, attribution: Attribution) -> Shares:
    """Return c_t and A of θ_T = A·θ_0 + Σ_t c_t·ḡ_t for a training of `rows` rows.

    Only `Attribution.exact` makes the equation hold, and only for SGD. The others give −lr_t and A = 1.
    """
    per_epoch = math.ceil(rows / recipe.batch_size)
    rates = [recipe.rate(step, per_epoch) for step in range(recipe.epochs * per_epoch)]
    if attribution is not Attribution.exact:
        return Shares([-rate for rate in rates], 1.0)
    # SGD with momentum μ and weight decay λ: m_t = μ·m_{t−1} + ḡ_t + λ·θ_t and θ_{t+1} = θ_t − lr_t·m_t.
    # Backwards over the steps, a = ∂θ_T/∂θ_{t+1} and b = μ·∂θ_T/∂m_{t+1}, from a = 1 and b = 0:
    #   q = ∂θ_T/∂m_t = b − lr_t·a,  c_t = q,  a ← a + λ·q,  b ← μ·q.
    each, a, b = [], 1.0, 0.0
    for rate in reversed(rates):
        q = b - rate * a
        each.append(q)
        a, b = a + recipe.weight_decay * q, recipe.momentum * q
    return Shares(each[::-1], a)


def adam_roots(step: Step, layer: nn.Module) -> Tensor:
    """Return (parameters,) √v̂_t + ε, by which Adam's update after this step divides a layer's gradient.

    Call it between the backward pass and the update, while the parameters hold the batch's gradient.
    """
    group = step.optimizer.param_groups[0]
    # AdamW decays the weights apart from the gradient; it may be a subclass of Adam.
    decay = group["weight_decay"] if isinstance(step.optimizer, torch.optim.Adam) else 0
    decay = 0 if isinstance(step.optimizer, torch.optim.AdamW) else decay
    beta, roots = group["betas"][1], []
    for parameter in layer.parameters(recurse=False):
        assert parameter.grad is not None
        state = step.optimizer.state.get(parameter, {})
        # v_t = β₂·v_{t−1} + (1 − β₂)·(g + λ·θ)² and v̂_t = v_t / (1 − β₂^(t+1)), steps counted from 0.
        gradient = parameter.grad + decay * parameter.detach()
        before = state.get("exp_avg_sq", torch.zeros_like(gradient))
        square = beta * before + (1 - beta) * gradient**2
        corrected = square / (1 - beta ** (step.number + 1))
        roots.append((corrected.sqrt() + group["eps"]).flatten())
    return torch.cat(roots)
