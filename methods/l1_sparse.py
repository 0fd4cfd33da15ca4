"""l1-sparse: fine-tune on the retained rows under a penalty that fades.

Idea: a sparse model forgets more easily; sparsity is asked for while it fine-tunes.
Update rule: θ ← θ − η (∇CE(D_r) + γ_t sign θ), from θ_o, for all weights; γ_t = γ (1 − t / T) in epoch t
of T = `epochs` − `free_epochs`, and 0 in the last `free_epochs` (`strength` is γ).
Needs: the retained rows.
Differs from the reference code: its γ of 0.2 is shared with another option and far too large. The
logged loss is CE alone.
Reference: Jia et al., Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import batch_fits, zero_or_more
from methods.training.descent import Descent
from methods.training.loop import curves, train


@dataclass(frozen=True)
class L1Sparse(Descent, Method):
    kind: ClassVar[str] = "methods.l1_sparse.L1Sparse"
    access: ClassVar[Access] = Access.RETAIN
    strength: float
    free_epochs: int

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        zero_or_more(option, self, "strength")
        if not 0 <= self.free_epochs <= self.epochs:
            raise UserError(
                f"{option}.free_epochs={self.free_epochs}: it must lie between 0 and {option}.epochs"
            )

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.retain, "the retained part")

    def coefficient(self, epoch: int) -> float:
        """γ_t of an epoch (counted from 0)."""
        penalised = self.epochs - self.free_epochs
        return self.strength * (1 - epoch / penalised) if epoch < penalised else 0.0

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        steps = train(model, problem.retain, self, conditions)
        for step in curves(steps, conditions.log):
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach().sign(), alpha=self.coefficient(step.epoch))
        return model
