"""Descent on some coordinates of the weights while the others keep their bits."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

Masks = Mapping[str, Tensor]  # by parameter name, of its shape, true where it may move


@contextmanager
def only(model: nn.Module, optimizer: torch.optim.Optimizer, masks: Masks) -> Iterator[None]:
    """While it is open, the optimizer's steps move the masked coordinates alone.

    Gradients are zero elsewhere, so that clipping measures what moves; but a zero gradient does not
    hold a weight still under weight decay or momentum, so the others are put back after every step.
    """
    parameters = dict(model.named_parameters())
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def put_back(*_: object) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(torch.where(masks[name], parameter, start[name]))

    hooks = [
        parameter.register_post_accumulate_grad_hook(partial(_mask_gradient, masks[name]))
        for name, parameter in parameters.items()
    ]
    hooks.append(optimizer.register_step_post_hook(put_back))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mask_gradient(mask: Tensor, parameter: Tensor) -> None:
    """In place, where a hook on the gradient on its way would leave two more copies of it."""
    assert parameter.grad is not None
    parameter.grad.mul_(mask)


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
