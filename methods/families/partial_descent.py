"""A descent of which every update moves a part of each layer only.

Update rule: θ ← θ + P_l ⊙ Δ, Δ what the optimizer would have done to layer l, P_l drawn anew for every
update, each number true with the layer's share. Layer l of L, counted from the input, has the share
k_first + (k_last − k_first)·l/(L − 1). What stays keeps every bit; the optimizer's averages see all
gradients.
Reference: paper 002 (Gogineni & Nadimi 2024), whose layer-wise variants of label flipping and of
gradient ascent update a fraction of each layer; it gives no schedule.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from data.errors import UserError
from data.streams import Streams
from methods.base import Facts, Method
from methods.training.checks import above_zero_to_one
from methods.training.descent import Descent, Step
from methods.weights.layers import owners, rising


@dataclass(frozen=True)
class PartialDescent(Descent, Method):
    keep_first: float
    keep_last: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero_to_one(option, self, "keep_first", "keep_last")

    def check(self, facts: Facts) -> None:
        super().check(facts)
        layers = owners(facts.outline())
        sizes = [sum(value.numel() for value in layer.parameters(recurse=False)) for layer in layers]
        shares = rising(self.keep_first, self.keep_last, len(layers))
        if sum(share * size for share, size in zip(shares, sizes, strict=True)) < 1:
            raise UserError(
                f"method.keep_first={self.keep_first} with method.keep_last={self.keep_last} moves none "
                f"of the {sum(sizes)} weights: raise them"
            )

    def updating(self, steps: Iterator[Step], model: nn.Module, streams: Streams) -> Iterator[Step]:
        """Passes the steps on; the updates between them move the chosen numbers alone."""
        layers = [list(layer.parameters(recurse=False)) for layer in owners(model)]
        shares = rising(self.keep_first, self.keep_last, len(layers))
        rng = streams("partial")
        before: list[list[torch.Tensor]] = []

        def note(*_: Any) -> None:
            before[:] = [[value.detach().clone() for value in layer] for layer in layers]

        @torch.no_grad()
        def hold(*_: Any) -> None:
            for share, layer, old in zip(shares, layers, before, strict=True):
                for value, earlier in zip(layer, old, strict=True):
                    moves = torch.rand(value.shape, generator=rng) < share
                    value.copy_(torch.where(moves.to(value.device), value, earlier))

        for step in steps:
            if step.number == 0:
                step.optimizer.register_step_pre_hook(note)
                step.optimizer.register_step_post_hook(hold)
            yield step
