"""The gradient of the loss of many rows, for methods that compare weights by it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.split import Split
from methods.training.loop import Conditions
from models.precision import autocast


def summed_gradients(
    model: nn.Module, split: Split, size: int, conditions: Conditions
) -> dict[str, Tensor]:
    """Return Σ over rows of ∂CE(x, y)/∂θ by parameter name, in the parameter's shape.

    It does not depend on the batch size, up to rounding. Puts the model into evaluation mode, uses
    images without augmentation and leaves no gradients.
    """
    model.eval().zero_grad()
    for batch in conditions.meter.ordered_batches(split, size):
        with autocast(conditions.bf16, batch.images.device):
            logits = model(batch.images).float()
        F.cross_entropy(logits, batch.labels, reduction="sum").backward()  # adds to parameter.grad
    sums = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    model.zero_grad()
    return sums
