"""Repair: a short training on the retained rows, after any method.

Idea: the retained rows can restore what a method has damaged.
Update rule: θ ← θ − η ∇CE(D_r), from θ_u, for `epochs` epochs. If `recovered` is set, stop once the
accuracy on D_r is at most `recovered` below the original's. After every 32 batches the accuracy on
their rows is measured as the original's is: in evaluation mode and without augmentation.
Needs: the retained rows.
Reference: Graves et al., Amnesiac Machine Learning, AAAI 2021; papers 002 and 004 (4 epochs).
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from data.bounds import SHARE
from methods.base import ROUNDING, Access, Method, Problem, accuracy
from methods.training.checkpoint import Values
from methods.training.descent import Descent
from methods.training.loop import curves, train

# Batches between two measurements of accuracy, which use the rows of these batches.
WINDOW = 32


@dataclass(frozen=True)
class Repair(Descent, Method):
    """`recovered`, from 0 to 1, is the loss of accuracy that ends the repair; null runs all epochs."""

    kind: ClassVar[str] = "methods.repair.Repair"
    access: ClassVar[Access] = Access.RETAIN
    version: ClassVar[int] = 2  # 1 compared augmented batches in training mode with clean rows
    logs: ClassVar[tuple[str, ...]] = ("recovered_at_step", "goal")
    recovered: Annotated[float, SHARE] | None

    def identity(self) -> dict[str, Any]:
        own = super().identity()
        # 2 let rounding decide about an accuracy that is the goal itself; without a goal nothing changed
        return own if self.recovered is None else {**own, "version": 3}

    def unlearn(self, problem: Problem) -> nn.Module:
        retain, conditions = problem.retain, problem.conditions
        goal = None
        if self.recovered is not None:
            # stop at accuracy(θ) ≥ accuracy(θ_o) − recovered
            goal = accuracy(problem.original(), retain, conditions) - self.recovered
        # the rows of the batches since the last measurement
        window = Values(rows=[])
        with conditions.checkpoint.training(conditions.meter) as checkpoint:
            checkpoint.add("window", window)
            steps = train(problem.model, retain, self, conditions, checkpoint=checkpoint)
            for step in curves(steps, conditions.log, checkpoint):
                if goal is None:
                    continue
                window["rows"].append(step.batch.rows)
                if len(window["rows"]) < WINDOW:
                    continue
                # accuracy(θ) on the rows of the last WINDOW batches, a sample of D_r
                sample = retain.only(torch.cat([rows.to(retain.rows.device) for rows in window["rows"]]))
                if accuracy(problem.model, sample, conditions) >= goal - ROUNDING:
                    conditions.log({"recovered_at_step": step.number, "goal": goal})
                    break
                problem.model.train()  # `accuracy` has left it in evaluation mode
                window["rows"].clear()
        return problem.model
