"""Just in time: make the model flat around the forgotten rows.

Idea: what is memorised stands out from its surroundings; smoothing there takes it away, and needs no
other row.
Update rule: θ ← θ − η ∇ Σ_{x∈b} mean_ξ ‖f(x) − f(x + ξ)‖/‖ξ‖ over `samples` draws ξ ~ N(0, noise²), x
+ ξ clamped to the batch's range of values, f the logits. No gradient flows through the noisy image.
Needs: the forgotten rows.
Differs from the reference code: that never resets its gradients, so that each step repeats all steps
before; here each takes its own. The model is in evaluation mode, so that f differs by the image alone.
Reference: Foster et al., Zero-Shot Machine Unlearning at Scale via Lipschitz Regularization, 2024
(JiT).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import Access, Facts, Method, Problem
from methods.training.checks import above_zero, at_least_one, batch_fits
from methods.training.descent import Descent
from methods.training.loop import train


@dataclass(frozen=True)
class JustInTime(Descent, Method):
    kind: ClassVar[str] = "methods.just_in_time.JustInTime"
    access: ClassVar[Access] = Access.FORGET
    noise: float
    samples: int

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero(option, self, "noise")
        at_least_one(option, self, "samples")

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.forget, "the part to forget")

    def unlearn(self, problem: Problem) -> nn.Module:
        conditions = problem.conditions
        steepness = Steepness(problem.model, self.noise, self.samples, conditions.streams("noise"))
        for step in train(steepness, problem.forget, self, conditions, _total):
            conditions.meter.count_forward(self.samples * len(step.batch.rows))
            conditions.log({"step": step.number, "steepness": step.logits.mean().item()})
        return problem.model


class Steepness(nn.Module):
    """(B,) how much a model's logits change around images (B, C, H, W), per unit of the image's change,
    as a mean over `samples` draws of Gaussian noise of the given deviation."""

    def __init__(self, model: nn.Module, noise: float, samples: int, rng: torch.Generator) -> None:
        super().__init__()
        self.model, self.noise, self.samples, self.rng = model, noise, samples, rng

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images).float()
        total = torch.zeros_like(logits[:, 0])
        for _ in range(self.samples):
            drawn = torch.randn(images.shape, generator=self.rng).to(images.device) * self.noise
            near = (images + drawn).clamp(images.min(), images.max())
            with torch.no_grad():
                other = self.model(near).float()
            change = torch.linalg.vector_norm(logits - other, dim=1)
            total = total + change / torch.linalg.vector_norm((images - near).flatten(1), dim=1)
        return total / self.samples

    def train(self, mode: bool = True) -> "Steepness":
        """Stays in evaluation mode."""
        return super().train(False)


def _total(steepness: Tensor, labels: Tensor) -> Tensor:
    return steepness.sum()
