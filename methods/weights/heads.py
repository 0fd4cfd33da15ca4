"""The last linear layer of a classifier, and the linear layer that feeds it."""

from torch import nn

from data.errors import UserError


def head_of(model: nn.Module, classes: int) -> tuple[str, nn.Linear]:
    """Return the name and the module of the last linear layer, whose outputs are the logits.

    Raise UserError if it does not have `classes` outputs.
    """
    linear = _linear_layers(model)
    if not linear or linear[-1][1].out_features != classes:
        raise UserError(
            f"this model has no last linear layer of {classes} outputs: choose another with model="
        )
    return linear[-1]


def hidden_of(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """Return the name and the module of the linear layer that feeds the last one, or None.

    It is the linear layer before the last one, if it has as many outputs as the last has inputs: the
    first of two in `small_cnn`, the second of three in AlexNet, the last block's in a ViT. A ResNet has
    none.
    """
    *before, (_, head) = _linear_layers(model)
    # The layer feeds the last one only if the shapes fit: (in, …) then (K, in).
    if not before or before[-1][1].out_features != head.in_features:
        return None
    return before[-1]


def _linear_layers(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
