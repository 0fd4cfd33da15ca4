"""Distillation-guided: selective fine-tuning that imitates a small teacher of the new labels.

Idea: draw the logit of the class that goes towards that of a model that never saw the class, not
towards zero.
Update rule: θ ← θ − η ∇[CE(relabelled rows) + λ_d·D + λ_m·E(f_s(x) − t_s(x))²] on the free coordinates
of selective fine-tuning. t is a small network trained on the relabelled rows, s is the class that goes.
With p = softmax(f/T) and q = softmax(t/T), D is KL(p‖q) for `direction: paper` and T²·KL(q‖p) for
`direction: code`. `distillation` is λ_d, `matching` is λ_m, `temperature` is T.
Needs: a request to relabel, with the relabelled and the forgotten rows.
Differs from the paper and the reference code: the paper writes KL(p‖q), and its code computes
T²·KL(q‖p); both are options here. The teacher has no dropout, as our small CNN has none (the code's:
0.1). It sees the relabelled rows, as in the code; the paper says all of MNIST. Frozen coordinates keep
every bit. The teacher's training belongs to the method and counts as its cost.
Reference: paper 000 (Nuralin and Bakridenov, Machine Unlearning, 2025), section 3.2.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import EPOCHS, POSITIVE, POSITIVE_SHARE, SIZE, STRENGTH
from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.selective_finetune import Criterion, classes_of, masks_of, require_relabelling
from methods.training.descent import Descent, Step
from methods.training.loop import Conditions, curves, named, of_phase, train
from methods.weights.masks import only
from models.small_cnn import SmallCNN


class Direction(Enum):
    """The divergence: from student to teacher, as in the paper, or the other way, as in its code."""

    paper = "paper"
    code = "code"


@dataclass(frozen=True)
class DistillationGuided(Descent, Method):
    """The descent also trains the teacher, for `teacher_epochs`. The teacher is a small CNN with two
    `teacher_widths` (channels of its convolutions) and `teacher_hidden` units."""

    kind: ClassVar[str] = "methods.distillation_guided.DistillationGuided"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = of_phase("teacher")
    importance: Criterion
    share: Annotated[float, POSITIVE_SHARE]
    direction: Direction
    temperature: Annotated[float, POSITIVE]
    distillation: Annotated[float, STRENGTH]
    matching: Annotated[float, STRENGTH]
    teacher_epochs: Annotated[int, EPOCHS]
    teacher_widths: list[Annotated[int, SIZE]]
    teacher_hidden: Annotated[int, SIZE]

    def phases(self) -> Mapping[str, int]:
        return {**super().phases(), "teacher_epochs": self.teacher_epochs}

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        if len(self.teacher_widths) != 2:
            raise UserError(f"{option}.teacher_widths={self.teacher_widths}: write two widths")

    def idle(self) -> Mapping[str, str]:
        if self.distillation > 0:
            return super().idle()
        reason = "distillation=0 leaves the divergence out"
        return {**super().idle(), **dict.fromkeys(("direction", "temperature"), reason)}

    def check(self, facts: Facts) -> None:
        require_relabelling(facts)

    def unlearn(self, problem: Problem) -> nn.Module:
        conditions = problem.conditions
        # one module for both, because the loop gives the loss the outputs of one module
        pair = Beside(problem.model, self._teacher(problem))
        source, _ = classes_of(problem)
        divergence = DIVERGENCES[self.direction]

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            ours, theirs = logits.chunk(2, 1)  # f(x) and t(x), (B, K) each
            apart = divergence(ours, theirs, self.temperature)
            # CE + λ_d·D + λ_m·E(f_s − t_s)²
            matched = F.mse_loss(ours[:, source], theirs[:, source])
            return F.cross_entropy(ours, labels) + self.distillation * apart + self.matching * matched

        masks = masks_of(problem, self.importance, self.share, self.batch_size)
        with only(problem.model, masks):
            steps = train(pair, problem.retain, self, conditions, loss)
            for _ in curves(_of_student(steps, conditions), conditions.log):
                pass
        return problem.model

    def _teacher(self, problem: Problem) -> nn.Module:
        """Return a small network trained on the relabelled rows, frozen."""
        channels, size = problem.retain.images.shape[1:3]
        network = SmallCNN(None, None, None, self.teacher_widths, self.teacher_hidden)
        seed = problem.conditions.streams.number("teacher")
        teacher = network.fresh(channels, size, problem.classes, seed)
        teacher = teacher.to(problem.retain.images.device)
        descent, conditions = replace(self, epochs=self.teacher_epochs), problem.conditions
        steps = train(teacher, problem.retain, descent, conditions)
        for _ in curves(steps, named(conditions.log, "teacher")):
            pass
        teacher.zero_grad()  # frees the memory of its gradients
        return teacher.requires_grad_(False)


class Beside(nn.Module):
    """The logits (B, 2K) of a student that learns and of a teacher that does not, side by side.

    The teacher stays in evaluation mode."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.student(images), self.teacher(images)], 1)

    def train(self, mode: bool = True) -> "Beside":
        super().train(mode)
        self.teacher.eval()
        return self


def _of_student(steps: Iterator[Step], conditions: Conditions) -> Iterator[Step]:
    """Yield the steps with the student's logits alone, and count the teacher's forward passes."""
    for step in steps:
        conditions.meter.count_forward(len(step.batch.rows))
        yield replace(step, logits=step.logits.chunk(2, 1)[0])


def _student_to_teacher(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Return KL(p‖q) of student p and teacher q at temperature T, the mean over rows (eq. 4)."""
    log_p, log_q = (F.log_softmax(logits / temperature, 1) for logits in (ours, theirs))
    # (1/B) Σ_rows Σ_k p_k (log p_k − log q_k)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _teacher_to_student(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(q‖p) of teacher q and student p, the mean over rows."""
    return temperature**2 * _student_to_teacher(theirs, ours, temperature)


DIVERGENCES: dict[Direction, Callable[[Tensor, Tensor, float], Tensor]] = {
    Direction.paper: _student_to_teacher,
    Direction.code: _teacher_to_student,
}
