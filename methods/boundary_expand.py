"""Boundary expand: move the forgotten rows into a class of their own, then take that class away.

Idea: an extra, (K+1)-th output attracts the forgotten rows; without it their answers are what is left.
Update rule: append an output to the last layer, its weights at random; θ ← θ − η ∇CE on
{(x, K+1) : x ∈ D_f}, from θ_o; remove the output.
Needs: the forgotten rows; a request for half of the classes, whose answers would mostly be each
other, is refused.
Differs from the reference code: one published version never removes the output and finds the last layer
by a width written into it; here it is the last linear layer, and the result has the original's shape.
Reference: Chen et al., Boundary Unlearning, CVPR 2023.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from methods.base import Access, Facts, Method, Problem
from methods.training.checks import batch_fits, most_classes_stay
from methods.training.descent import Descent
from methods.training.loop import fit


@dataclass(frozen=True)
class BoundaryExpand(Descent, Method):
    kind: ClassVar[str] = "methods.boundary_expand.BoundaryExpand"
    access: ClassVar[Access] = Access.FORGET

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.forget, "the part to forget")
        most_classes_stay(facts.classes, facts.gone)

    def unlearn(self, problem: Problem) -> nn.Module:
        forget = problem.forget
        head = [layer for layer in problem.model.modules() if isinstance(layer, nn.Linear)][-1]
        widen(head, problem.conditions.streams("head"))
        extra = torch.full_like(forget.labels, problem.classes)
        fit(problem.model, forget.relabelled(extra), self, problem.conditions)
        narrow(head)
        return problem.model


@torch.no_grad()
def widen(head: nn.Linear, rng: torch.Generator) -> None:
    """Appends an output, drawn as a new linear layer's would be; the others keep their weights."""
    bound = 1 / math.sqrt(head.in_features)
    for name, parameter in list(head.named_parameters()):
        drawn = torch.empty(1, *parameter.shape[1:]).uniform_(-bound, bound, generator=rng)
        setattr(head, name, nn.Parameter(torch.cat([parameter, drawn.to(parameter)])))
    head.out_features += 1


@torch.no_grad()
def narrow(head: nn.Linear) -> None:
    """Removes the last output."""
    for name, parameter in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(parameter[:-1].clone()))
    head.out_features -= 1
