"""Boundary expand: move the forgotten rows into an extra class, then remove that class.

Idea: an extra, (K+1)-th output attracts the forgotten rows; after its removal another class answers.
Update rule: append an output with random weights to the last layer; θ ← θ − η ∇CE on {(x, K+1) : x ∈
D_f}, from θ_o; remove the output.
Needs: the forgotten rows. A request for half of the classes or more is refused, since the forgotten
classes would mostly answer for each other. On random rows the method usually moves no prediction.
Differs from the reference code: one published version never removes the output, and the authors' finds
the last layer by a fixed width. Here it is the last linear layer, and the result has the original's
shape.
Reference: Chen et al., Boundary Unlearning, CVPR 2023.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from methods.base import Access, Facts, Method, Problem
from methods.training.checks import most_classes_stay
from methods.training.descent import Descent
from methods.training.loop import fit


@dataclass(frozen=True)
class BoundaryExpand(Descent, Method):
    kind: ClassVar[str] = "methods.boundary_expand.BoundaryExpand"
    access: ClassVar[Access] = Access.FORGET

    def check(self, facts: Facts) -> None:
        most_classes_stay(facts.classes, facts.gone)

    def unlearn(self, problem: Problem) -> nn.Module:
        forget = problem.forget
        head = [layer for layer in problem.model.modules() if isinstance(layer, nn.Linear)][-1]
        widen(head, problem.conditions.streams("head"))
        # {(x, K+1) : x ∈ D_f}; classes count from 0, so the label of the extra output is K
        extra = torch.full_like(forget.labels, problem.classes)
        fit(problem.model, forget.relabelled(extra), self, problem.conditions)
        narrow(head)
        return problem.model


@torch.no_grad()
def widen(head: nn.Linear, rng: torch.Generator) -> None:
    """Append an output with the initialisation of a new linear layer; the others keep their weights."""
    # torch's initialisation: weights and bias from U(−1/√in, 1/√in).
    bound = 1 / math.sqrt(head.in_features)
    for name, parameter in list(head.named_parameters()):
        # one more output: the weights (K, in) become (K + 1, in), the biases (K,) become (K + 1,)
        new = torch.empty(1, *parameter.shape[1:]).uniform_(-bound, bound, generator=rng)
        setattr(head, name, nn.Parameter(torch.cat([parameter, new.to(parameter)])))
    head.out_features += 1


@torch.no_grad()
def narrow(head: nn.Linear) -> None:
    """Remove the last output of the layer."""
    for name, parameter in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(parameter[:-1].clone()))
    head.out_features -= 1
