"""Boundary shrink: give the forgotten rows to the class across the nearest boundary.

Idea: a step along the gradient's sign crosses the nearest decision boundary. The class behind it is the
one that the row is most easily confused with.
Update rule: x' = x + ε sign ∇_x CE(f_o(x), y), with pixels from 0 to 1, clamped to that range; ỹ is the
likeliest class of f_o(x') other than y, found once for each row; θ ← θ − η ∇CE on {(x, ỹ) : x ∈ D_f},
from θ_o. `bound` is ε.
Needs: the forgotten rows. One of several forgotten classes may be another's neighbour; a request for
half of the classes or more is refused. On random rows the method usually moves no prediction.
Differs from the reference code: that takes the likeliest class even if it is y, and rounds x' to 256
levels. Its loader normalises CIFAR-10 with mean and deviation 0.5, but its FGSM undoes CIFAR's own
(about 0.2): its bound of 0.1 is a step of 0.249 of the pixel range, and x' leaves [0, 1]. `bound=0.25`
with `clamp=false` takes that step.
Reference: Chen et al., Boundary Unlearning, CVPR 2023.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import POSITIVE_SHARE
from data.split import Batch, Pixels, Split
from methods.base import Access, Facts, Method, Problem
from methods.families.distillation import Teacher
from methods.training.checks import most_classes_stay
from methods.training.descent import Descent
from methods.training.loop import fit
from models.precision import autocast


@dataclass(frozen=True)
class BoundaryShrink(Descent, Method):
    kind: ClassVar[str] = "methods.boundary_shrink.BoundaryShrink"
    access: ClassVar[Access] = Access.FORGET
    version: ClassVar[int] = 2  # 1 labelled augmented images
    bound: Annotated[float, POSITIVE_SHARE]
    clamp: bool

    def identity(self) -> dict[str, Any]:
        """Return all fields but a true `clamp`: results from before the field were clamped."""
        identity = super().identity()
        if self.clamp:
            del identity["clamp"]
        return identity

    def check(self, facts: Facts) -> None:
        most_classes_stay(facts.classes, facts.gone)

    def unlearn(self, problem: Problem) -> nn.Module:
        across = nearest_classes(problem, self.bound, self.batch_size, self.clamp)
        return fit(problem.model, across, self, problem.conditions)


def nearest_classes(problem: Problem, bound: float, batch_size: int, clamp: bool = True) -> Split:
    """Return the forgotten rows under the labels ỹ of their nearest other classes.

    If the budget ends early, return only the rows that were reached.
    """
    forget, conditions = problem.forget, problem.conditions
    original = Teacher(problem.original(), conditions)
    found = [forget.labels[:0]]
    for batch in conditions.meter.ordered_batches(forget, batch_size):
        moved = stepped(original.model, batch, forget.pixels, bound, conditions.bf16, clamp)
        # ỹ = argmax over k ≠ y of f_o(x')_k.
        own = F.one_hot(batch.labels, problem.classes).bool()
        found.append(original(moved).masked_fill(own, -torch.inf).argmax(1))
    labels = torch.cat(found)
    return forget.take(torch.arange(len(labels))).relabelled(labels)


def stepped(
    model: nn.Module, batch: Batch, pixels: Pixels, bound: float, bf16: bool, clamp: bool = True
) -> Tensor:
    """Return the normalised images (B, C, H, W) after a step up the loss, by FGSM.

    The step is `bound` of the pixel range in every pixel; `clamp` keeps the result in that range.
    """
    images = batch.images.detach().clone().requires_grad_()
    with autocast(bf16, images.device):
        logits = model(images).float()
    # ∇ₓCE(f_o(x), y) of every row: in the sum over rows, each image moves only its own term
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, batch.labels, reduction="sum"), images)
    # pixel values 0 and 1 after normalisation, (1, C, 1, 1)
    darkest, brightest = (
        pixels.normalise(torch.full_like(images[:1, :, :1, :1], byte, dtype=torch.uint8))
        for byte in (0, 255)
    )
    # x' = x + ε·sign ∇ₓCE: ε is a share of the pixel range, whose ends are normalised as x is.
    there = images.detach() + bound * (brightest - darkest) * slope.sign()
    return there.clamp(darkest, brightest) if clamp else there
