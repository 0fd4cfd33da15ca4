"""SCRUB: move away from the original on the forgotten rows, stay with it on the rest.

Idea: a student that contradicts its teacher, the original, only on the rows to forget.
Update rule: each of the first `ascent_epochs` epochs begins with a pass over D_f:
θ ← θ + η ∇KL(p_o ‖ p_θ). Every epoch passes over D_r: θ ← θ − η ∇[α KL(p_o ‖ p_θ) + γ CE].
`kl_weight` is α and `ce_weight` is γ. KL is taken at temperature T and multiplied by T². One optimizer
serves both passes.
Needs: the forgotten and the retained rows. The original stays in memory beside the student.
Rewinding (SCRUB+R): of the models after each epoch, keep the one with the error on D_f closest to
`rewind_error`; of two equally close ones keep the later. Null keeps the last model.
Differs from the paper: the paper takes the error to rewind to from validation rows of the same classes.
Here the original has seen every training row, so that error is an option (for example 1 − the test
accuracy on those classes). The authors' options for weight averaging and smoothing are dead code and
are left out. A request to relabel retains all rows, the forgotten ones under their new label: the
student is pushed away from the original on these rows and drawn to it in turns.
Reference: Kurmanji et al., Towards Unbounded Machine Unlearning, NeurIPS 2023.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from data.bounds import COUNT, EPOCHS, POSITIVE, SHARE, STRENGTH
from data.split import Batch
from methods.base import ROUNDING, Access, Method, Problem, accuracy
from methods.families.distillation import Teacher, divergence
from methods.training.descent import Descent
from methods.training.loop import Phase, cross_entropy, of_phase


@dataclass(frozen=True)
class Scrub(Descent, Method):
    """`batch_size` is that of the retained rows, `forget_batch_size` that of the forgotten ones;
    `rewind_error` lies between 0 and 1, or is null."""

    kind: ClassVar[str] = "methods.scrub.Scrub"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("forget_error", *of_phase("forget"), *of_phase("retain"))
    forget_batch_size: Annotated[int, COUNT]
    ascent_epochs: Annotated[int, EPOCHS]
    kl_weight: Annotated[float, STRENGTH]
    ce_weight: Annotated[float, STRENGTH]
    temperature: Annotated[float, POSITIVE]
    rewind_error: Annotated[float, SHARE] | None

    def identity(self) -> dict[str, Any]:
        own = super().identity()
        # 1 let rounding decide between two equally close errors
        return own if self.rewind_error is None else {**own, "version": 2}

    def idle(self) -> Mapping[str, str]:
        if self.ascent_epochs > 0:
            return super().idle()
        reason = "ascent_epochs=0 passes over no forgotten row"
        found = {**super().idle(), "forget_batch_size": reason}
        return found if self.kl_weight else {**found, "temperature": f"{reason}, and kl_weight=0"}

    def unlearn(self, problem: Problem) -> nn.Module:
        closest, kept = torch.inf, problem.model
        for epoch, student in enumerate(self.students(problem)):
            if self.rewind_error is None:
                continue
            # SCRUB+R minimises |error(D_f) − rewind_error| over the epochs; ≤ prefers the later one.
            error = 1 - accuracy(student, problem.forget, problem.conditions)
            problem.conditions.log({"epoch": epoch + 1, "forget_error": error})
            distance = abs(error - self.rewind_error)
            if distance <= closest + ROUNDING:
                closest = distance
                if kept is student:
                    kept = deepcopy(student)
                else:  # reuse the copy instead of holding a second one
                    kept.load_state_dict(student.state_dict())
        return kept

    def students(self, problem: Problem) -> Iterator[nn.Module]:
        """Yield the student after every epoch: the same module each time."""
        conditions = problem.conditions
        teacher = Teacher(problem.original(), conditions)

        def disobey(logits: Tensor, batch: Batch) -> Tensor:
            # T²·KL(p_o ‖ p_θ), which is climbed (Kurmanji et al. 2023, the max-step)
            return divergence(teacher(batch.images), logits, self.temperature)

        def obey(logits: Tensor, batch: Batch) -> Tensor:
            # α·T²·KL(p_o ‖ p_θ) + γ·CE (the min-step)
            imitation = divergence(teacher(batch.images), logits, self.temperature)
            return self.kl_weight * imitation + self.ce_weight * cross_entropy(logits, batch)

        smaller = replace(self, batch_size=self.forget_batch_size)
        forget = Phase(
            problem.model, problem.forget, smaller, conditions, disobey, climbs=True, name="forget"
        )
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
