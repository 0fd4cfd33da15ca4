"""LoTUS: smooth the answers on the forgotten rows until they are as accurate as on unseen rows.

Idea: a model is more certain of rows that it has seen. Random answers, the smoother the further the
forgotten rows are from unseen ones, take that certainty away; answers without smoothing hold the rest.
Update rule: before each epoch, τ = exp(α(a_f − a_v)). a_f is the student's accuracy on D_f, and a_v the
original's on unseen rows; if a_f − a_v ≤ −0.01, stop. θ ← θ − η ∇CE(t, p_θ) on D_f ∪ a random part of
D_r, from θ_o. t = softmax((l_o + g)/τ) on D_f, and the one-hot class of the largest l_o + g elsewhere,
with new Gumbel noise g at every step. `alpha` is α and `validation_accuracy` is a_v.
Needs: the forgotten rows and the share `retain_fraction` of the retained ones, the labels of the
forgotten ones alone. The original stays in memory beside the student.
Differs from the reference code: that measures a_v on validation rows, and takes 0 if whole classes are
forgotten. Here the original has seen every training row, so a_v is an option (for example its test
accuracy), and null is that 0; other requests are refused without the number.
Reference: Spartalis et al., LoTUS: Large-Scale Machine Unlearning with a Taste of Uncertainty, CVPR
2025; its code, `src/unlearning_methods/lotus_class.py`.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import SHARE, Bounds
from data.errors import UserError
from data.split import Batch
from methods.base import ROUNDING, Access, Facts, Method, Problem, accuracy
from methods.families.distillation import Teacher
from methods.training.descent import Descent
from methods.training.loop import BatchLoss, Phase

# Forgetting ends once the forgotten rows are less accurate than unseen ones by this much.
STOP = -0.01

# exp(80) is finite in float32; a difference of accuracies is at most 1.
SMOOTHING = Bounds(0, 80)


@dataclass(frozen=True)
class LoTUS(Descent, Method):
    """`validation_accuracy`, from 0 to 1, is a_v; null is 0, for requests to forget whole classes."""

    kind: ClassVar[str] = "methods.lotus.LoTUS"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("accuracy_difference",)
    alpha: Annotated[float, SMOOTHING]
    retain_fraction: Annotated[float, SHARE]
    validation_accuracy: Annotated[float, SHARE] | None

    def identity(self) -> dict[str, Any]:
        own = super().identity()
        # 1 let rounding decide about a difference of −0.01 itself, which no accuracy has beside a_v = 0
        return own if self.validation_accuracy is None else {**own, "version": 2}

    def check(self, facts: Facts) -> None:
        if self.validation_accuracy is None and not facts.gone:
            raise UserError(
                "method=lotus compares the forgotten rows with unseen ones: set "
                "method.validation_accuracy to the original's accuracy on these (0 to 1), or choose "
                "scenario=whole_class"
            )

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions, rest = problem.model, problem.conditions, problem.rest
        # a random part of D_r, `retain_fraction` of its rows
        part = rest.drawn(conditions.streams("sample"), round(self.retain_fraction * len(rest)))
        target = Target(problem)
        phase = Phase(model, part.joined(problem.forget), self, conditions)
        conditions.meter.progress.expect(self.epochs * len(phase.split))
        for epoch in range(self.epochs):
            # a_f − a_v
            difference = accuracy(model, problem.forget, conditions) - (self.validation_accuracy or 0)
            conditions.log({"epoch": epoch + 1, "accuracy_difference": difference})
            if difference <= STOP + ROUNDING:
                break
            phase.loss_function = target.loss(self.temperature(difference))
            phase.run(epoch)
        return model

    def temperature(self, difference: float) -> float:
        """Return τ = exp(α(a_f − a_v)): above 1 while the student knows the forgotten rows too well."""
        return math.exp(self.alpha * difference)


class Target:
    """The targets of both parts, from the original's logits and Gumbel noise.

    The noise is drawn on the CPU, so that it is the same on every device.
    """

    def __init__(self, problem: Problem) -> None:
        self.original = Teacher(problem.original(), problem.conditions)
        self.rows = problem.forget.rows
        self.rng = problem.conditions.streams("gumbel")

    def loss(self, temperature: float) -> BatchLoss:
        """Return the mean cross-entropy with the targets at a temperature."""

        def imitation(logits: Tensor, batch: Batch) -> Tensor:
            return F.cross_entropy(logits, self(batch, temperature))

        return imitation

    def __call__(self, batch: Batch, temperature: float) -> Tensor:
        """Return t (B, K): soft for the forgotten rows of the batch, one-hot for the others."""
        logits = self.original(batch.images)
        # −ln of an exponential variable has the Gumbel distribution
        noise = -torch.empty(logits.shape).exponential_(generator=self.rng).log()
        noisy = logits + noise.to(logits)  # l_o + g
        soft = F.softmax(noisy / temperature, dim=1)
        # the largest l_o + g is a draw from softmax(l_o)
        hard = F.one_hot(noisy.argmax(1), logits.shape[1]).to(soft)
        forgotten = torch.isin(batch.rows, self.rows)[:, None]  # (B, 1)
        return torch.where(forgotten, soft, hard)
