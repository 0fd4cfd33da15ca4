"""CT (convolution transpose): transpose every kernel, then fine-tune.

Idea: transposed kernels still detect edges and textures, but of other directions. What the layers after
them have memorised no longer fits, and fine-tuning on the retained rows restores only what these need.
Update rule: W[o, i, h, w] ← W[o, i, w, h] in every convolution, from θ_o. Then θ ← θ − η ∇CE(D_r).
Needs: the retained rows, and a model with convolutions, whose kernels are square.
Differs from the reference code: its cosine changes the rate once per epoch, here it does at every step.
Reference: an entry of the NeurIPS 2023 unlearning challenge, as named and benchmarked by Cadet et al.,
Deep Unlearn: Benchmarking Machine Unlearning, 2024; their code, `munl/unlearning/kgltop5.py`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import fit
from methods.weights.layers import convolutions


@dataclass(frozen=True)
class CT(Descent, Method):
    kind: ClassVar[str] = "methods.ct.CT"
    access: ClassVar[Access] = Access.RETAIN

    def check(self, facts: Facts) -> None:
        for name, layer in convolutions(facts.outline()):
            height, width = layer.kernel_size
            if height != width:
                raise UserError(
                    f"{name} has kernels of {height}×{width}, and method=ct transposes square ones: "
                    "choose another model with model=, or another method with method="
                )

    def unlearn(self, problem: Problem) -> nn.Module:
        transpose_kernels(problem.model)
        # θ ← θ − η ∇CE(D_r), from the transposed kernels
        return fit(problem.model, problem.retain, self, problem.conditions)


@torch.no_grad()
def transpose_kernels(model: nn.Module) -> None:
    """Transpose height and width of the kernels of every convolution, in place."""
    for _, layer in convolutions(model):
        # W[o, i, h, w] ← W[o, i, w, h]; the clone keeps the copy from reading what it has written
        layer.weight.copy_(layer.weight.transpose(2, 3).clone())
