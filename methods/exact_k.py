"""EU-k: reset the last k layers and retrain them on the retained rows.

Idea: exact unlearning of the layers that are most specific to the classes; the others stay.
Update rule: draw θ_k, the parameters of the last k layers that own parameters, from the initial
distribution; then θ_k ← θ_k − η ∇CE(D_r). All others keep every bit. `layers` is k.
Needs: the retained rows.
Differs from the reference code: that counts only convolutions and linear layers, and trains the norms
between them without resetting them; here every layer that owns parameters counts, and is reset.
Reference: Goel et al., Towards Adversarial Evaluations of Inexact Machine Unlearning, 2022 (EU-k).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.base import Problem
from methods.catastrophic_k import CatastrophicK
from methods.weights.layers import last_layers


@dataclass(frozen=True)
class ExactK(CatastrophicK):
    kind: ClassVar[str] = "methods.exact_k.ExactK"
    version: ClassVar[int] = 2  # 1 reset to a file of weights, if the original began with one

    def unlearn(self, problem: Problem) -> nn.Module:
        layers = last_layers(problem.model, self.layers)
        fresh = last_layers(problem.randomly_initialised(problem.conditions.streams), self.layers)
        for layer, new in zip(layers, fresh, strict=True):
            # θ_k from the initial distribution
            layer.load_state_dict(new.state_dict())
        return super().unlearn(problem)
