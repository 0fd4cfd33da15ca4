"""SFRon: fine-tune on the retained rows, with steps of ascent on the forgotten ones in between.

Idea: ascent along the weights that matter to the forgotten rows at least as much as to the others, held
back by fine-tuning. Rows that are forgotten already count less.
Update rule: every step is θ ← θ − η ∇CE(B_r), from θ_o; ahead of each `forget_every`-th one, the first
included, a batch of D_f takes θ ← θ + η g. g is α_t m ⊙ ∇Σ_i w_i ℓ_i, cut to the norm `forget_clip`.
ℓ_i is the row's CE, and w_i ∝ ℓ_i^(−λ) is held fixed, Σ_i w_i = 1. m_i = 1 if F_f,i / F_r,i ≥ γ, else 0,
where F is the diagonal Fisher information at θ_o. α_t = α (1 + cos(π t/T))/2 at step t of T. Both kinds
of steps share one optimizer, whose momentum and weight decay act on all weights. `forget_weight` is α,
`loss_power` is λ, `threshold` is γ; α = 0 takes no step of ascent. A row whose loss is 0 in float32
takes all the weight of its batch, and climbs nowhere.
Needs: the forgotten and the retained rows; one gradient of each for F.
Differs from the reference code: it takes 1,500 steps, which are 4.3 passes over its retained rows; here
the length is `epochs` passes, as for other methods. F squares the mean gradient of a batch, as there,
but of rows in order and images without augmentation. The code's average with past weights is left out,
because its factor of 1 keeps the new weights alone.
Reference: Huang et al., Unified Gradient-Based Machine Unlearning with Remain Geometry Enhancement,
NeurIPS 2024; its code, `Classification/unlearn/sfron.py`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import COUNT, POSITIVE, STRENGTH, Bounds
from data.split import Batch
from methods.base import Access, Method, Problem
from methods.training.cost import pass_streams
from methods.training.descent import Descent
from methods.training.loop import Phase
from methods.weights.importance import batch_fisher
from models.precision import autocast

# Keeps the ratio of two Fisher informations, and the weight of a row without loss, finite.
SMALLEST = 1e-15

# Up to this power, ℓ^λ is finite in float32 for every loss below 7,000 nats.
POWER = Bounds(0, 10)


@dataclass(frozen=True)
class SFRon(Descent, Method):
    """`batch_size` is that of both parts, and `clip` bounds the gradient of the retained rows alone."""

    kind: ClassVar[str] = "methods.sfron.SFRon"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("selected",)
    forget_every: Annotated[int, COUNT]
    forget_weight: Annotated[float, STRENGTH]
    forget_clip: Annotated[float, POSITIVE]
    loss_power: Annotated[float, POWER]
    threshold: Annotated[float, STRENGTH]

    def idle(self) -> Mapping[str, str]:
        if self.forget_weight > 0:
            return super().idle()
        reason = "forget_weight=0 takes no step of ascent"
        return {**super().idle(), **dict.fromkeys(("forget_every", "forget_clip", "loss_power"), reason)}

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        masks = self.masks(problem)
        streams = pass_streams(conditions.streams.part("forget"))
        forgotten = conditions.meter.endless_batches(problem.forget, self.batch_size, streams)

        def before(number: int) -> None:
            if self.forget_weight and number % self.forget_every == 0:
                self.ascend(retain, forgotten, masks, number)

        retain = Phase(model, problem.retain, self, conditions, before=before)
        steps = self.epochs * math.ceil(len(problem.retain) / self.batch_size)
        ascents = math.ceil(steps / self.forget_every) if self.forget_weight else 0
        ascended = ascents * min(self.batch_size, len(problem.forget))
        conditions.meter.progress.expect(self.epochs * len(problem.retain) + ascended)
        for epoch in range(self.epochs):
            retain.run(epoch)
        return model

    def masks(self, problem: Problem) -> dict[str, Tensor]:
        """Return m by parameter name: true for the weights that the ascent may move. Log their share."""
        forget, rest = (
            batch_fisher(problem.model, part, self.batch_size, problem.conditions)
            for part in (problem.forget, problem.rest)
        )
        # F_f / F_r ≥ γ
        masks = {
            name: (forget.mean(name) + SMALLEST) / (rest.mean(name) + SMALLEST) >= self.threshold
            for name in forget.sums
        }
        chosen = sum(int(mask.sum()) for mask in masks.values())
        problem.conditions.log({"selected": chosen / sum(mask.numel() for mask in masks.values())})
        return masks

    def ascend(
        self, retain: Phase, forgotten: Iterator[Batch], masks: dict[str, Tensor], number: int
    ) -> None:
        """Climb the loss of the next batch of forgotten rows, ahead of step `number` of the phase.

        If the budget leaves no batch, do nothing.
        """
        model, optimizer = retain.model, retain.optimizer
        steps_per_epoch = math.ceil(len(retain.split) / self.batch_size)
        # α_t = α (1 + cos(π t/T))/2
        decay = (1 + math.cos(math.pi * number / (self.epochs * steps_per_epoch))) / 2
        for batch in islice(forgotten, 1):
            with autocast(retain.conditions.bf16, batch.images.device):
                logits = model(batch.images).float()
            optimizer.zero_grad(set_to_none=True)
            # descending −α_t Σ_i w_i ℓ_i climbs the loss
            (-self.forget_weight * decay * weighted(logits, batch.labels, self.loss_power)).backward()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(masks[name])
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.forget_clip)
            for group in optimizer.param_groups:
                group["lr"] = self.rate(number, steps_per_epoch)
            optimizer.step()


def weighted(logits: Tensor, labels: Tensor, power: float) -> Tensor:
    """Return Σ_i w_i ℓ_i in nats, for w_i ∝ ℓ_i^(−power), with Σ_i w_i = 1 and no gradient in w_i."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    # w_i = c_i / Σ_j c_j, with c_i = ℓ_i^(−λ)
    shares = 1 / (losses.detach() ** power + SMALLEST)
    return (shares / shares.sum() * losses).sum()
