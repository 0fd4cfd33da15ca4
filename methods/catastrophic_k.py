"""CF-k: fine-tune the last k layers on the retained rows.

Idea: catastrophic forgetting, confined to the layers that are most specific to the classes.
Update rule: θ_k ← θ_k − η ∇CE(D_r), from θ_o. θ_k are the parameters of the last k layers that own
parameters; all others keep every bit. `layers` is k.
Needs: the retained rows.
Differs from the reference code: that counts only convolutions and linear layers, and trains the norms
between them too; here every layer that owns parameters counts.
Reference: Goel et al., Towards Adversarial Evaluations of Inexact Machine Unlearning, 2022 (CF-k).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from data.bounds import COUNT
from methods.base import Access, Facts, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import fit
from methods.weights.layers import last_layers, thaw_only


@dataclass(frozen=True)
class CatastrophicK(Descent, Method):
    kind: ClassVar[str] = "methods.catastrophic_k.CatastrophicK"
    access: ClassVar[Access] = Access.RETAIN
    layers: Annotated[int, COUNT]

    def check(self, facts: Facts) -> None:
        last_layers(facts.outline(), self.layers)  # raises UserError if the model has fewer

    def unlearn(self, problem: Problem) -> nn.Module:
        # θ_k alone gets gradients: the optimizer never sees the other parameters
        thaw_only(problem.model, last_layers(problem.model, self.layers))
        fit(problem.model, problem.retain, self, problem.conditions)
        return problem.model.requires_grad_(True)
