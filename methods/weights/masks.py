"""Training of single coordinates of parameters, while all others keep every bit.

A zero gradient does not freeze a weight, since weight decay and momentum still move it. Here the model
uses θ = m∘θ_free + (1 − m)∘θ_fixed, and the optimizer updates θ_free. Its steps along the coordinates
with m = 0 have no effect. Their gradient is 0, so that clipping measures the others alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

Masks = Mapping[str, Tensor]  # boolean, by parameter name, of its shape; true coordinates may move


class Partly(nn.Module):
    """A parametrization that takes `free` at the true coordinates of the mask, and `fixed` elsewhere."""

    def __init__(self, mask: Tensor, fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("fixed", fixed)

    def forward(self, free: Tensor) -> Tensor:
        # θ = m∘θ_free + (1 − m)∘θ_fixed
        return torch.where(self.mask, free, self.fixed)  # type: ignore[arg-type]


@contextmanager
def only(model: nn.Module, masks: Masks) -> Iterator[None]:
    """Within the body, let a training of the model move only the true coordinates of `masks`.

    Parameters without a mask are frozen. Make the optimizer inside the body. Afterwards the parameters
    hold the trained values, and require gradients as before.
    """
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.requires_grad_(False)
    places = {name: _place(model, name) for name in masks}
    for name, (layer, own) in places.items():
        parameter = getattr(layer, own)
        register_parametrization(layer, own, Partly(masks[name], parameter.detach().clone()))
        parameter.requires_grad_()
    try:
        yield
    finally:
        for layer, own in places.values():
            remove_parametrizations(layer, own)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that owns a parameter, and the parameter's name in it."""
    layer, _, own = name.rpartition(".")
    return model.get_submodule(layer), own


def largest(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return masks of the `share` (0 to 1) of all coordinates with the largest scores.

    The coordinates of all parameters compete together; of equal scores the earlier ones win.
    """
    flat = torch.cat([score.flatten() for score in scores.values()])
    wanted = round(share * len(flat))
    # The smallest of the `wanted` largest scores is the (n − wanted + 1)-th smallest of all n.
    least = flat.kthvalue(min(len(flat), len(flat) - wanted + 1)).values  # copies less than a sort
    chosen = flat > least
    # Ties at `least` fill the remaining places, from the first coordinate on.
    equal = (flat == least).nonzero()[:, 0]
    chosen[equal[: wanted - int(chosen.sum())]] = True
    pieces = chosen.split([score.numel() for score in scores.values()])
    return {
        name: piece.view_as(score) for (name, score), piece in zip(scores.items(), pieces, strict=True)
    }
