"""Repair: a short training on the retained rows, after any method.

Idea: what a method has damaged can be learned again from what may still be seen.
Update rule: θ ← θ − η ∇CE(D_r), from θ_u; for `epochs`, or until it is as good as the original was:
until it is within `recovered` of the original's accuracy on D_r. It is looked at every 32 batches, on
their rows, as the original was: in evaluation mode and without augmentation.
Needs: the retained rows.
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021; papers 002 and 004 (4 epochs).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import Access, Facts, Method, Problem, accuracy
from methods.training.checks import batch_fits, zero_to_one
from methods.training.descent import Descent
from methods.training.loop import curves, train

# Batches after which, and on whose rows, accuracy is looked at to tell whether the model has recovered.
WINDOW = 32


@dataclass(frozen=True)
class Repair(Descent, Method):
    kind: ClassVar[str] = "methods.repair.Repair"
    access: ClassVar[Access] = Access.RETAIN
    version: ClassVar[int] = 2  # 1 compared augmented batches in training mode with clean rows
    recovered: float | None

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        if self.recovered is not None:
            zero_to_one(option, self, "recovered")

    def check(self, facts: Facts) -> None:
        batch_fits("repair", self, facts.retain, "the retained part")

    def unlearn(self, problem: Problem) -> nn.Module:
        retain, conditions = problem.retain, problem.conditions
        goal = None
        if self.recovered is not None:
            goal = accuracy(problem.original(), retain, conditions) - self.recovered
        rows: list[Tensor] = []
        for step in curves(train(problem.model, retain, self, conditions), conditions.log):
            if goal is None:
                continue
            rows.append(step.batch.rows)
            if len(rows) < WINDOW:
                continue
            if accuracy(problem.model, retain.only(torch.cat(rows)), conditions) >= goal:
                conditions.log({"recovered_at_step": step.number, "goal": goal})
                break
            problem.model.train()
            rows.clear()
        return problem.model
