"""Learning from another model's outputs: frozen teachers, and how far two outputs are apart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.training.loop import Conditions
from models.precision import autocast


class Teacher:
    """A model that is asked and never changes: images to (B, K) float32 logits, in evaluation mode,
    without gradients. What it looks at is counted as forward examples."""

    def __init__(self, model: nn.Module, conditions: Conditions) -> None:
        self.model = model.eval().requires_grad_(False)
        self.model.zero_grad()  # gradients left from its training are a copy's memory
        self.conditions = conditions

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        self.conditions.meter.cost.forward_examples += len(images)
        with autocast(self.conditions.bf16, images.device):
            logits: Tensor = self.model(images)
        return logits.float()


def divergence(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """T²·KL(p ‖ q) in nats, the mean over rows, of p = softmax(target / T) and q = softmax(logits / T);
    T² keeps the size of gradients (Hinton et al. 2015). Both (B, K); a gradient flows into either."""
    p = F.log_softmax(target / temperature, dim=1)
    q = F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True) * temperature**2
