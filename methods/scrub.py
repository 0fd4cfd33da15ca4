"""SCRUB: move away from the original on the forgotten rows, stay with it on the rest.

Idea: a student that disobeys its teacher, the original, only where it is to forget.
Update rule: each epoch, while it is among the first `ascent_epochs`, over D_f:
θ ← θ + η ∇KL(p_o ‖ p_θ); then over D_r: θ ← θ − η ∇[α KL(p_o ‖ p_θ) + γ CE] (`kl_weight` is α,
`ce_weight` is γ); KL at temperature T, times T²; one optimizer for both.
Needs: the forgotten and the retained rows; the original stays in memory beside the student.
Rewinding (SCRUB+R): of the models after each epoch, the one whose error on D_f is closest to
`rewind_error` is kept, the later one of two that are equally close; null keeps the last.
Differs from the paper: that takes the error to rewind to from validation rows of the same classes; here
every training row was seen by the original, so it is a number to give (for example 1 − the test accuracy
on such rows). Its options of weight averaging and smoothing are dead code and are left out. In a request
to relabel all rows are retained, the forgotten ones under their new label: these are pushed away from
the original and drawn to it in turns.
Reference: Kurmanji et al., Towards Unbounded Machine Unlearning, NeurIPS 2023.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.errors import UserError
from data.split import Batch
from methods.base import Access, Facts, Method, Problem, accuracy
from methods.families.distillation import Teacher, divergence
from methods.training.checks import above_zero, at_least_one, batch_fits, zero_or_more
from methods.training.descent import Descent
from methods.training.loop import Phase, cross_entropy


@dataclass(frozen=True)
class Scrub(Descent, Method):
    kind: ClassVar[str] = "methods.scrub.Scrub"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    forget_batch_size: int
    ascent_epochs: int
    kl_weight: float
    ce_weight: float
    temperature: float
    rewind_error: float | None

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero(option, self, "temperature")
        zero_or_more(option, self, "ascent_epochs", "kl_weight", "ce_weight")
        at_least_one(option, self, "forget_batch_size")
        if self.rewind_error is not None and not 0 <= self.rewind_error <= 1:
            raise UserError(
                f"{option}.rewind_error={self.rewind_error}: it must lie between 0 and 1, or be null"
            )

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.retain, "the retained part")
        batch_fits("method", self, facts.forget, "the part to forget", "forget_batch_size")

    def unlearn(self, problem: Problem) -> nn.Module:
        closest, kept = torch.inf, problem.model
        for epoch, student in enumerate(self.students(problem)):
            if self.rewind_error is None:
                continue
            error = 1 - accuracy(student, problem.forget, problem.conditions)
            problem.conditions.log({"epoch": epoch + 1, "forget_error": error})
            if abs(error - self.rewind_error) <= closest:
                closest = abs(error - self.rewind_error)
                if kept is student:
                    kept = deepcopy(student)
                else:  # no second copy beside the first
                    kept.load_state_dict(student.state_dict())
        return kept

    def students(self, problem: Problem) -> Iterator[nn.Module]:
        """The student after every epoch; the same module each time."""
        conditions = problem.conditions
        teacher = Teacher(problem.original(), conditions)

        def disobey(logits: Tensor, batch: Batch) -> Tensor:
            return -divergence(teacher(batch.images), logits, self.temperature)

        def obey(logits: Tensor, batch: Batch) -> Tensor:
            imitation = divergence(teacher(batch.images), logits, self.temperature)
            return self.kl_weight * imitation + self.ce_weight * cross_entropy(logits, batch)

        smaller = replace(self, batch_size=self.forget_batch_size)
        forget = Phase(problem.model, problem.forget, smaller, conditions, disobey, name="forget")
        retain = Phase(
            problem.model, problem.retain, self, conditions, obey, forget.optimizer, name="retain"
        )
        ascents = min(self.ascent_epochs, self.epochs)
        conditions.meter.progress.expect(
            ascents * len(problem.forget) + self.epochs * len(problem.retain)
        )
        for epoch in range(self.epochs):
            if epoch < self.ascent_epochs:
                forget.run(epoch)
            retain.run(epoch)
            yield problem.model
