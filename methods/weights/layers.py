"""The layers of a model that own parameters, counted from its end."""

from collections.abc import Callable

from torch import Tensor, nn

from data.errors import UserError


def owners(model: nn.Module) -> list[nn.Module]:
    """The modules that own parameters, in the order in which the model defines them."""
    return [module for module in model.modules() if list(module.parameters(recurse=False))]


def refuse_batch_norm(model: nn.Module) -> None:
    """Raises UserError, naming the layer, where one couples the samples of a batch."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            raise UserError(f"{name} is a BatchNorm, which couples samples: use GroupNorm in its place")


def refuse_strides_over_a_pixel(model: nn.Module, image: Tensor) -> None:
    """Raises UserError, naming the layer, where a convolution with a stride sees a single pixel of an
    image (1, C, H, W): oneDNN leaves parts of its weight's gradient in bf16 unwritten (torch 2.15)."""

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def refuse(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].shape[2:].numel() == 1 and layer.stride != (1, 1):
                raise UserError(
                    f"{name} sees a single pixel, of which a CPU in bf16 makes wrong gradients: set "
                    "training.precision=fp32"
                )

        return refuse

    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(look(name))
    model(image)


def rising(first: float, last: float, layers: int) -> list[float]:
    """A share for each of so many layers, from the first one's to the last one's in equal steps."""
    rise = (last - first) / max(1, layers - 1)
    return [first + rise * layer for layer in range(layers)]


def last_layers(model: nn.Module, k: int) -> list[nn.Module]:
    """The last `k` modules that own parameters, in the order in which the model defines its layers.
    Raises UserError where it has fewer."""
    found = owners(model)
    if k > len(found):
        raise UserError(
            f"method.layers={k}, but the model has {len(found)} layers with parameters: "
            f"set method.layers={len(found)} or less"
        )
    return found[len(found) - k :]


def thaw_only(model: nn.Module, layers: list[nn.Module]) -> None:
    """Leaves gradients to these layers alone; an optimizer made afterwards moves nothing else."""
    model.requires_grad_(False)
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(True)
