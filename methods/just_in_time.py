"""Just in time: make the model flat around the forgotten rows.

Idea: a memorised row stands out from its surroundings. Smoothing the model there removes it, and needs
no other row.
Update rule: θ ← θ − η ∇ Σ_{x∈b} mean_ξ ‖f(x) − f(x + ξ)‖/‖ξ‖, with f the logits, over `samples` draws ξ
~ N(0, noise²); x + ξ is clamped to the batch's range of values. No gradient flows through the noisy
image.
Needs: the forgotten rows.
Differs from the reference code: that never resets its gradients, so that each step adds those of all
steps before; here a step takes only its own. The model is in evaluation mode, so that only the image
changes f.
Reference: Foster et al., Zero-Shot Machine Unlearning at Scale via Lipschitz Regularization, 2024
(JiT).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from data.bounds import POSITIVE, ROUNDS
from methods.base import Access, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import train


@dataclass(frozen=True)
class JustInTime(Descent, Method):
    kind: ClassVar[str] = "methods.just_in_time.JustInTime"
    access: ClassVar[Access] = Access.FORGET
    version: ClassVar[int] = 2  # 1 drew other noise in a compiled training
    logs: ClassVar[tuple[str, ...]] = ("step", "steepness")
    noise: Annotated[float, POSITIVE]
    samples: Annotated[int, ROUNDS]

    def unlearn(self, problem: Problem) -> nn.Module:
        conditions = problem.conditions
        steepness = Steepness(problem.model, self.noise, self.samples, conditions.streams("noise"))
        for step in train(steepness, problem.forget, self, conditions, _total):
            conditions.meter.count_forward(self.samples * len(step.batch.rows))
            conditions.log({"step": step.number, "steepness": step.logits.mean().item()})
        return problem.model


class Steepness(nn.Module):
    """The change (B,) of a model's logits around images (B, C, H, W), per unit of the images' change:
    the mean over `samples` draws of Gaussian noise with the deviation `noise`."""

    def __init__(self, model: nn.Module, noise: float, samples: int, rng: torch.Generator) -> None:
        super().__init__()
        self.model, self.noise, self.samples, self.rng = model, noise, samples, rng

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images).float()  # f(x), (B, K)
        total = torch.zeros_like(logits[:, 0])
        for _ in range(self.samples):
            drawn = torch.randn(images.shape, generator=self.rng).to(images.device) * self.noise
            # x + ξ, in the range of the batch's values
            near = (images + drawn).clamp(images.min(), images.max())
            with torch.no_grad():
                other = self.model(near).float()
            # ‖f(x) − f(x + ξ)‖/‖ξ‖, with the noise that is left after the clamp.
            change = torch.linalg.vector_norm(logits - other, dim=1)
            distance = torch.linalg.vector_norm((images - near).flatten(1), dim=1)
            # A batch of one value leaves no room for noise: 0/0 counts as 0.
            total = total + change / distance.clamp(min=torch.finfo(distance.dtype).tiny)
        # mean_ξ, (B,)
        return total / self.samples

    def train(self, mode: bool = True) -> "Steepness":
        """Stay in evaluation mode and ignore `mode`, so that only the image changes f."""
        return super().train(False)


def _total(steepness: Tensor, labels: Tensor) -> Tensor:
    # Σ_{x∈b}: the sum over rows, as in the update rule, not the mean
    return steepness.sum()
