"""Where a classifier ends: its last linear layer, and the linear layer that feeds it."""

from torch import nn

from data.errors import UserError


def head_of(model: nn.Module, classes: int) -> tuple[str, nn.Linear]:
    """The name and the module of the last linear layer, whose outputs are the logits. Raises UserError
    where it has no row for each class."""
    linear = _linear_layers(model)
    if not linear or linear[-1][1].out_features != classes:
        raise UserError(
            f"this model ends in no linear layer of {classes} outputs: choose another with model="
        )
    return linear[-1]


def hidden_of(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """The linear layer before the last one, where there is one with as many outputs as that has inputs
    (the first of two in `small_cnn` and AlexNet, the last block's in a ViT; none in a ResNet)."""
    *before, (_, head) = _linear_layers(model)
    if not before or before[-1][1].out_features != head.in_features:
        return None
    return before[-1]


def _linear_layers(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
