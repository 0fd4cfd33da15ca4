"""Training some coordinates of some parameters, while all others keep every bit.

A gradient that is set to zero does not hold a weight: weight decay moves it, and so does momentum.
Here the weight that the model uses is put together from the fixed one and a free one, so that whatever
an optimizer does to the free one's other coordinates is never read, and clipping measures what moves.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

Masks = Mapping[str, Tensor]  # by parameter name, of its shape, true where it may move


class Partly(nn.Module):
    """`free` where the mask is true, the fixed values elsewhere."""

    def __init__(self, mask: Tensor, fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("fixed", fixed)

    def forward(self, free: Tensor) -> Tensor:
        return torch.where(self.mask, free, self.fixed)  # type: ignore[arg-type]


@contextmanager
def only(model: nn.Module, masks: Masks) -> Iterator[None]:
    """While the body trains the model, nothing moves but the coordinates that are true in `masks`;
    a parameter that has none stays. An optimizer is made inside."""
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
    layer, _, own = name.rpartition(".")
    return model.get_submodule(layer), own


def largest(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks of the `share` (0 to 1) of all coordinates together that have the largest scores; of equal
    scores the earlier ones."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    wanted = round(share * len(flat))
    least = flat.kthvalue(min(len(flat), len(flat) - wanted + 1)).values  # no sort: fewer copies
    chosen = flat > least
    equal = (flat == least).nonzero()[:, 0]
    chosen[equal[: wanted - int(chosen.sum())]] = True
    pieces = chosen.split([score.numel() for score in scores.values()])
    return {
        name: piece.view_as(score) for (name, score), piece in zip(scores.items(), pieces, strict=True)
    }
