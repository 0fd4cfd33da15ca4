"""MSG (masked small gradients): draw part of the convolution weights anew, and train these fastest.

Idea: weights with a small gradient, for keeping the retained rows and losing the forgotten ones, can be
drawn anew at little cost. What they stored is lost, and fine-tuning restores what the rest needs.
Update rule: g = Σ_{S} ∂CE/∂θ − Σ_{D_f} ∂CE/∂θ at θ_o, with |D_f| random retained rows S (all of them if
there are fewer). In each convolution the `share` of the kernels' weights with the smallest |g| is drawn
from N(0, 2/fan_out) (He et al. 2015). Then θ ← θ − η m ⊙ ∇CE(D_r); m is `factor` for the other weights
of the kernels, and 1 for those drawn and for all other parameters.
Needs: the forgotten and the retained rows, and a model with convolutions.
Differs from the reference code: g sums over rows, where the code adds the means of batches, and takes
evaluation mode and images without augmentation; the code's loaders augment. The code also draws the
biases of convolutions anew (its ResNets have none); here they stay. It changes the rate once per epoch
(1/3, 2/3, 1, 2/3, 1/3 of `lr`), here it rises and falls at every step.
Reference: an entry of the NeurIPS 2023 unlearning challenge, as named and benchmarked by Cadet et al.,
Deep Unlearn: Benchmarking Machine Unlearning, 2024; their code, `munl/unlearning/kgltop2.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from data.bounds import SHARE, STRENGTH
from methods.base import Access, Facts, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import curves, train
from methods.weights.gradients import summed_gradients
from methods.weights.layers import convolutions
from methods.weights.masks import largest


@dataclass(frozen=True)
class MSG(Descent, Method):
    """`share` is the share of each convolution's weights that is drawn anew, and `factor` multiplies the
    gradient of its other weights."""

    kind: ClassVar[str] = "methods.msg.MSG"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    share: Annotated[float, SHARE]
    factor: Annotated[float, STRENGTH]

    def idle(self) -> Mapping[str, str]:
        if self.share < 1:
            return super().idle()
        reason = "share=1 draws every weight of the kernels anew"
        return {**super().idle(), "factor": reason}

    def check(self, facts: Facts) -> None:
        convolutions(facts.outline())

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        gradients = self.gradients(problem)
        if conditions.meter.cut:
            return model  # g is of some rows alone, and no training would follow
        masks = smallest(model, gradients, self.share)
        redraw(model, masks, conditions.streams("weights"))
        # m: 1 for the drawn weights of a kernel, `factor` for its others
        rates = {name: torch.where(mask, 1.0, self.factor) for name, mask in masks.items()}
        kernels = [(layer.weight, rates[name]) for name, layer in convolutions(model)]
        for _ in curves(train(model, problem.retain, self, conditions), conditions.log):
            for kernel, rate in kernels:
                if kernel.grad is not None:
                    kernel.grad.mul_(rate)  # m ⊙ ∇CE
        return model

    def gradients(self, problem: Problem) -> dict[str, Tensor]:
        """Return g = Σ_S ∂CE/∂θ − Σ_{D_f} ∂CE/∂θ by parameter name."""
        sample = problem.rest.drawn(problem.conditions.streams("sample"), len(problem.forget))
        keep, lose = (
            summed_gradients(problem.model, part, self.batch_size, problem.conditions)
            for part in (sample, problem.forget)
        )
        return {name: keep[name] - lose[name] for name in keep}


def smallest(model: nn.Module, gradients: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return masks of the `share` of each convolution's weights with the smallest |gradient|.

    The masks are named by layer and the gradients by parameter; both have the kernel's shape.
    """
    # the smallest |g| have the largest −|g|
    scores = {name: -gradients[f"{name}.weight"].abs() for name, _ in convolutions(model)}
    return {name: largest({name: score}, share)[name] for name, score in scores.items()}


@torch.no_grad()
def redraw(model: nn.Module, masks: Mapping[str, Tensor], rng: torch.Generator) -> None:
    """Draw the true weights of each convolution anew, in place: w ~ N(0, 2/fan_out)."""
    for name, layer in convolutions(model):
        # fan_out is the number of output channels times the kernel's pixels
        drawn = torch.empty(layer.weight.shape)
        nn.init.kaiming_normal_(drawn, mode="fan_out", nonlinearity="relu", generator=rng)
        layer.weight.copy_(torch.where(masks[name], drawn.to(layer.weight), layer.weight))
