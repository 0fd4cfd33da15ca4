"""The layers of a model: selection, freezing, copies, and checks of their types."""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from data.errors import UserError


def owners(model: nn.Module) -> list[nn.Module]:
    """Return the modules that own parameters, in the order of their definition."""
    return [module for module in model.modules() if list(module.parameters(recurse=False))]


def convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """Return the names and the modules of the 2-D convolutions, in the order of their definition.

    Raise UserError if there is none.
    """
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
    if not found:
        raise UserError(
            "this method changes convolutions, and the model has none: choose another model with "
            "model=, or another method with method="
        )
    return found


def without_hooks(model: nn.Module) -> nn.Module:
    """Return a copy of the model that no forward hook watches, such as a recorder's."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module._forward_hooks.clear()
    return twin


def refuse_batch_norm(model: nn.Module) -> None:
    """Raise UserError, naming the layer, if a BatchNorm couples the samples of a batch."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            raise UserError(f"{name} is a BatchNorm, which couples samples: use GroupNorm instead")


def refuse_strides_over_a_pixel(model: nn.Module, image: Tensor) -> None:
    """Raise UserError, naming the layer, if a strided convolution sees a single pixel of `image`.

    `image` has shape (1, C, H, W). oneDNN, on a CPU in bf16, leaves parts of the weight gradient of such
    a layer unwritten (torch 2.15).
    """

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def refuse(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].shape[2:].numel() == 1 and layer.stride != (1, 1):
                raise UserError(
                    f"{name} sees a single pixel, for which a CPU in bf16 computes wrong gradients: set "
                    "training.precision=fp32"
                )

        return refuse

    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(look(name))
    model(image)


def rising(first: float, last: float, layers: int) -> list[float]:
    """Return one share per layer, from `first` to `last` in equal steps."""
    # first + (last − first)·l/(L − 1) for layer l of L, counted from 0
    rise = (last - first) / max(1, layers - 1)
    return [first + rise * layer for layer in range(layers)]


def last_layers(model: nn.Module, k: int) -> list[nn.Module]:
    """Return the last `k` modules that own parameters, in the order of their definition.

    Raise UserError if the model has fewer.
    """
    found = owners(model)
    if k > len(found):
        raise UserError(
            f"method.layers={k}, but the model has {len(found)} layers with parameters: "
            f"set method.layers={len(found)} or less"
        )
    return found[len(found) - k :]


def thaw_only(model: nn.Module, layers: list[nn.Module]) -> None:
    """Freeze all parameters but those that these layers own. Call it before making the optimizer."""
    model.requires_grad_(False)
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(True)
