"""l1-sparse: fine-tune on the retained rows under a penalty that fades.

Idea: a sparse model forgets more easily, and the penalty makes the model sparse during fine-tuning.
Update rule: θ ← θ − η (∇CE(D_r) + γ_t sign θ) for all weights, from θ_o. γ_t = γ (1 − t/T) in epoch t
of the first T = `epochs` − `free_epochs`, and 0 in the last `free_epochs`. `strength` is γ.
Needs: the retained rows.
Differs from the reference code: its default γ of 0.2 belongs to another method and is far too large.
With `free_epochs` = `epochs` γ_t is 0 here, which is fine-tuning; Unlearn-Sparse keeps γ_t = γ then
(except on ImageNet). The logged loss is CE alone.
Reference: Jia et al., Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from data.bounds import EPOCHS, STRENGTH
from data.errors import UserError
from methods.base import Access, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import curves, train


@dataclass(frozen=True)
class L1Sparse(Descent, Method):
    kind: ClassVar[str] = "methods.l1_sparse.L1Sparse"
    access: ClassVar[Access] = Access.RETAIN
    strength: Annotated[float, STRENGTH]
    free_epochs: Annotated[int, EPOCHS]

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        if self.free_epochs > self.epochs:
            raise UserError(
                f"{option}.free_epochs={self.free_epochs}: it must be at most {option}.epochs "
                f"({self.epochs})"
            )

    def idle(self) -> Mapping[str, str]:
        if self.strength == 0:
            return {**super().idle(), "free_epochs": "strength=0 penalises no epoch"}
        if self.free_epochs == self.epochs:
            return {**super().idle(), "strength": f"free_epochs={self.free_epochs} frees every epoch"}
        return super().idle()

    def coefficient(self, epoch: int) -> float:
        """Return γ_t of an epoch t, counted from 0."""
        # γ_t = γ (1 − t/T) for t < T = epochs − free_epochs, then 0
        penalised = self.epochs - self.free_epochs
        return self.strength * (1 - epoch / penalised) if epoch < penalised else 0.0

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        steps = train(model, problem.retain, self, conditions)
        for step in curves(steps, conditions.log):
            for parameter in model.parameters():
                if parameter.grad is not None:  # ∇CE + γ_t·sign θ
                    parameter.grad.add_(parameter.detach().sign(), alpha=self.coefficient(step.epoch))
        return model
