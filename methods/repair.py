"""Repair: a short training on the retained rows, after any method.

Idea: what a method has damaged can be learned again from what may still be seen.
Update rule: θ ← θ − η ∇CE(D_r), from θ_u; for `epochs`, or until it is as good as the original was:
until the accuracy on the last batches is within `recovered` of the original's on D_r.
Needs: the retained rows.
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021; papers 002 and 004 (4 epochs).
"""

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.base import Access, Facts, Method, Problem, accuracy
from methods.bounds import batch_fits, zero_to_one
from methods.training import Descent, curves, train

# Batches over which accuracy is averaged to tell whether the model has recovered.
WINDOW = 32


@dataclass(frozen=True)
class Repair(Descent, Method):
    access: ClassVar[Access] = Access.RETAIN
    recovered: float | None

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        if self.recovered is not None:
            zero_to_one(option, self, "recovered")

    def check(self, facts: Facts) -> None:
        batch_fits("repair", self, facts.retain, "the retained part")

    def unlearn(self, problem: Problem) -> nn.Module:
        assert problem.retain is not None
        log = problem.conditions.log
        goal = None
        if self.recovered is not None:
            original = accuracy(problem.original(), problem.retain, problem.conditions)
            goal = original - self.recovered
        recent: deque[float] = deque(maxlen=WINDOW)
        steps = train(problem.model, problem.retain, self, problem.conditions)
        for step in curves(steps, log):
            if goal is None:
                continue
            recent.append((step.logits.argmax(1) == step.batch.labels).float().mean().item())
            if len(recent) == WINDOW and sum(recent) / WINDOW >= goal:
                log({"recovered_at_step": step.number, "goal": goal})
                break
        return problem.model
