"""Learning from another model's outputs: frozen teachers, and the divergence of two outputs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.training.loop import Conditions
from models.precision import autocast


class Teacher:
    """A frozen model in evaluation mode: images (B, C, H, W) to logits (B, K), float32, no gradients.

    Every image counts as a forward example.
    """

    def __init__(self, model: nn.Module, conditions: Conditions) -> None:
        self.model = model.eval().requires_grad_(False)
        self.model.zero_grad()  # gradients left from training would occupy the memory of one more model
        self.conditions = conditions

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        self.conditions.meter.count_forward(len(images))
        with autocast(self.conditions.bf16, images.device):
            logits: Tensor = self.model(images)
        return logits.float()


def divergence(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(p ‖ q) in nats, the mean over rows, for p = softmax(target/T), q = softmax(logits/T).

    `target` and `logits` are (B, K); gradients flow into both. The factor T² keeps the size of the
    gradients independent of T (Hinton et al. 2015, section 2).
    """
    p = F.log_softmax(target / temperature, dim=1)  # log p
    q = F.log_softmax(logits / temperature, dim=1)  # log q
    # T² · (1/B) Σ_rows Σ_k p_k (log p_k − log q_k)
    return F.kl_div(q, p, reduction="batchmean", log_target=True) * temperature**2
