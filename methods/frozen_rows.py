"""Training some coordinates of some parameters, while all others keep every bit.

A gradient that is set to zero does not hold a weight: weight decay moves it, and so does momentum.
Here the weight that the model uses is put together from the fixed one and a free one, so that whatever
an optimizer does to the free one's other coordinates is never read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations


class Partly(nn.Module):
    """`free` where the mask is true, the fixed values elsewhere."""

    def __init__(self, mask: Tensor, fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("fixed", fixed)

    def forward(self, free: Tensor) -> Tensor:
        return torch.where(self.mask, free, self.fixed)  # type: ignore[arg-type]


@contextmanager
def only(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """While the body trains the model, nothing moves but the coordinates that are true in `masks`, which
    are by parameter name and shaped as the parameters."""
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
