"""Finetune: keep training on the retained rows, so that the forgotten ones fade.

Idea: the network forgets rows that it no longer sees (catastrophic forgetting).
Update rule: θ ← θ − η ∇CE(D_r), from θ_o.
Needs: the retained rows.
Differs from the papers: nothing but the learning rate, which decides the result. At zero training loss
nothing moves.
Reference: Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (baseline); called
"Retraining" in paper 003.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.base import Access, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import fit


@dataclass(frozen=True)
class Finetune(Descent, Method):
    kind: ClassVar[str] = "methods.finetune.Finetune"
    access: ClassVar[Access] = Access.RETAIN

    def unlearn(self, problem: Problem) -> nn.Module:
        # θ ← θ − η ∇CE(D_r), from θ_o
        return fit(problem.model, problem.retain, self, problem.conditions)
