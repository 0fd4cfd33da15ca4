"""Gradient descent in which every update moves only a share of each layer.

Update rule: θ ← θ + P_l ⊙ Δ, where Δ is the optimizer's update of layer l and P_l is a mask. Every
update draws a new mask. An entry is 1 with probability k_l, the share of its layer, and otherwise 0. Of
L layers, layer l = 0, 1, … from the input has k_l = k_first + (k_last − k_first)·l/(L − 1). Weights
outside the mask keep every bit; the optimizer's averages see all gradients.
Reference: Gogineni & Nadimi 2024 (paper 002). Its layer-wise variants of label flipping and gradient
ascent update a fraction of each layer; it gives no schedule.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import nn

from data.bounds import POSITIVE_SHARE
from data.errors import UserError
from data.streams import Streams
from methods.base import Facts, Method
from methods.training.descent import Descent, Step
from methods.weights.layers import owners, rising


@dataclass(frozen=True)
class PartialDescent(Descent, Method):
    """`keep_first` and `keep_last` are the shares of the first and last layer, above 0 and at most 1."""

    keep_first: Annotated[float, POSITIVE_SHARE]
    keep_last: Annotated[float, POSITIVE_SHARE]

    def check(self, facts: Facts) -> None:
        super().check(facts)
        layers = owners(facts.outline())
        sizes = [sum(value.numel() for value in layer.parameters(recurse=False)) for layer in layers]
        shares = rising(self.keep_first, self.keep_last, len(layers))
        # The expected number of weights that an update moves is Σ_l k_l·size_l.
        if sum(share * size for share, size in zip(shares, sizes, strict=True)) < 1:
            raise UserError(
                f"method.keep_first={self.keep_first} with method.keep_last={self.keep_last} moves none "
                f"of the {sum(sizes)} weights: set larger shares"
            )

    def updating(self, steps: Iterator[Step], model: nn.Module, streams: Streams) -> Iterator[Step]:
        """Yield the steps; each update after a step moves only the weights of a new mask."""
        layers = [list(layer.parameters(recurse=False)) for layer in owners(model)]
        shares = rising(self.keep_first, self.keep_last, len(layers))
        rng = streams("partial")
        before: list[list[torch.Tensor]] = []

        def remember(*_: Any) -> None:
            before[:] = [[value.detach().clone() for value in layer] for layer in layers]

        @torch.no_grad()
        def restore(*_: Any) -> None:
            for share, layer, old in zip(shares, layers, before, strict=True):
                for value, earlier in zip(layer, old, strict=True):
                    # P_l ~ Bernoulli(k_l); θ + Δ at P_l = 1, and the old θ, bit by bit, at P_l = 0
                    moves = torch.rand(value.shape, generator=rng) < share
                    value.copy_(torch.where(moves.to(value.device), value, earlier))

        for step in steps:
            # The hooks stay on the optimizer, so one registration serves all steps.
            if step.number == 0:
                step.optimizer.register_step_pre_hook(remember)
                step.optimizer.register_step_post_hook(restore)
            yield step
