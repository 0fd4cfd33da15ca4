"""Boundary shrink: give the forgotten rows to the class across the nearest boundary.

Idea: a step of the gradient's sign leads over the decision boundary; the class that lies there is what
the row would most easily be taken for.
Update rule: x' = x + ε sign ∇_x CE(f_o(x), y), in pixels from 0 to 1 and clamped to them; ỹ = the
likeliest class of f_o(x') other than y, once for every row; θ ← θ − η ∇CE on {(x, ỹ) : x ∈ D_f}, from
θ_o (`bound` is ε).
Needs: the forgotten rows. Of several forgotten classes, one may be the other's neighbour; a request
for half of the classes is refused.
Differs from the reference code: that takes the likeliest class even where the step did not leave y, and
clamps normalised tensors as if they were pixels; it rounds x' to 256 levels, which is left out here.
Reference: Chen et al., Boundary Unlearning, CVPR 2023.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.split import Batch, Pixels, Split
from methods.base import Access, Facts, Method, Problem
from methods.families.distillation import Teacher
from methods.training.checks import above_zero_to_one, batch_fits, most_classes_stay
from methods.training.descent import Descent
from methods.training.loop import fit
from models.precision import autocast


@dataclass(frozen=True)
class BoundaryShrink(Descent, Method):
    kind: ClassVar[str] = "methods.boundary_shrink.BoundaryShrink"
    access: ClassVar[Access] = Access.FORGET
    version: ClassVar[int] = 2  # 1 labelled augmented images
    bound: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero_to_one(option, self, "bound")

    def check(self, facts: Facts) -> None:
        batch_fits("method", self, facts.forget, "the part to forget")
        most_classes_stay(facts.classes, facts.gone)

    def unlearn(self, problem: Problem) -> nn.Module:
        across = nearest_classes(problem, self.bound, self.batch_size)
        return fit(problem.model, across, self, problem.conditions)


def nearest_classes(problem: Problem, bound: float, batch_size: int) -> Split:
    """The forgotten rows under the labels of their nearest other classes; where the budget ends early,
    those of them that were reached."""
    forget, conditions = problem.forget, problem.conditions
    original = Teacher(problem.original(), conditions)
    found = [forget.labels[:0]]
    for batch in conditions.meter.ordered_batches(forget, batch_size):
        moved = stepped(original.model, batch, forget.pixels, bound, conditions.bf16)
        own = F.one_hot(batch.labels, problem.classes).bool()
        found.append(original(moved).masked_fill(own, -torch.inf).argmax(1))
    labels = torch.cat(found)
    return forget.take(torch.arange(len(labels))).relabelled(labels)


def stepped(model: nn.Module, batch: Batch, pixels: Pixels, bound: float, bf16: bool) -> Tensor:
    """The images (B, C, H, W), normalised, after a step of `bound` (of the pixels' range) up the
    loss."""
    images = batch.images.detach().clone().requires_grad_()
    with autocast(bf16, images.device):
        logits = model(images).float()
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, batch.labels, reduction="sum"), images)
    darkest, brightest = (
        pixels.normalise(torch.full_like(images[:1, :, :1, :1], byte, dtype=torch.uint8))
        for byte in (0, 255)
    )
    there = images.detach() + bound * (brightest - darkest) * slope.sign()
    return there.clamp(darkest, brightest)
