"""The layers of a model that own parameters, counted from its end."""

from torch import nn

from data.errors import UserError


def last_layers(model: nn.Module, k: int) -> list[nn.Module]:
    """The last `k` modules that own parameters, in the order in which the model defines its layers.
    Raises UserError where it has fewer."""
    owners = [module for module in model.modules() if list(module.parameters(recurse=False))]
    if k > len(owners):
        raise UserError(
            f"method.layers={k}, but the model has {len(owners)} layers with parameters: "
            f"set method.layers={len(owners)} or less"
        )
    return owners[len(owners) - k :]


def thaw_only(model: nn.Module, layers: list[nn.Module]) -> None:
    """Leaves gradients to these layers alone; an optimizer made afterwards moves nothing else."""
    model.requires_grad_(False)
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(True)
