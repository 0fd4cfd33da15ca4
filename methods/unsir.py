"""UNSIR: train on noise with the label of the forgotten class, then repair.

Idea: images that raise the loss of a class as far as possible, learned and shown with its label,
overwrite the class. That needs none of the class's real images.
Update rule: for every whole forgotten class c, start from random images n and take `noise_steps` steps
of Adam that climb CE(f_o(n), c) − λ·mean‖n‖²; `noise_penalty` is λ. Impair: θ ← θ − η ∇CE on
`noise_copies` copies of n, labelled c, and on at most `retain_per_class` retained rows of every class.
Repair: θ ← θ − η' ∇CE on those retained rows.
Needs: the retained rows and the labels of whole classes. A request that retains rows of every class is
refused, because noise with the label of a class overwrites what stays of it, too, unless `noise_classes`
names that class. SSD's version forgets a part of a class in this way, and leaves the rest of it to
the repair. A request to relabel removes the old class, and its images are retained under the new label.
Differs from the reference code: the retained rows of a class are drawn at random; the code takes the
first 500. The noise steps leave nothing behind. In the code they run in training mode and add to the
model's gradients, so that the first step of impairing is the sum of all of them and distorts Adam's
averages. Its first version labels all noise as class 0 and supports only three channels.
Reference: Tarun et al., Fast Yet Effective Machine Unlearning, TNNLS 2023; numbers of SSD's version.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import COUNT, EPOCHS, POSITIVE, SIZE, STRENGTH
from data.classes import ClassNumber, check_classes
from data.errors import UserError
from data.split import Batch, Split
from methods.base import Access, Facts, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import Phase, alternate, of_phase
from models.precision import autocast


@dataclass(frozen=True)
class Unsir(Descent, Method):
    """`epochs`, `batch_size` and `lr` belong to impairing, the prefixed ones to the noise and to repair.

    `noise_batch_size` images are learned for each of `noise_classes`; null stands for the classes of
    which nothing is retained. At most `retain_per_class` retained rows of each class are used.
    """

    kind: ClassVar[str] = "methods.unsir.Unsir"
    access: ClassVar[Access] = Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("noise_loss", *of_phase("impair"), *of_phase("repair"))
    noise_classes: list[ClassNumber] | None
    noise_batch_size: Annotated[int, SIZE]
    noise_steps: Annotated[int, EPOCHS]
    noise_lr: Annotated[float, POSITIVE]
    noise_penalty: Annotated[float, STRENGTH]
    noise_copies: Annotated[int, SIZE]
    retain_per_class: Annotated[int, COUNT]
    repair_epochs: Annotated[int, EPOCHS]
    repair_batch_size: Annotated[int, COUNT]
    repair_lr: Annotated[float, POSITIVE]

    def phases(self) -> Mapping[str, int]:
        return {**super().phases(), "repair_epochs": self.repair_epochs}

    def idle(self) -> Mapping[str, str]:
        found = {**super().idle()}
        if not self.epochs:
            found |= dict.fromkeys(("lr", "batch_size"), "epochs=0 impairs nothing")
        if not self.noise_steps:
            found |= dict.fromkeys(("noise_lr", "noise_penalty"), "noise_steps=0 learns no noise")
        if not self.repair_epochs:
            found |= dict.fromkeys(("repair_lr", "repair_batch_size"), "repair_epochs=0 repairs nothing")
        return found

    def identity(self) -> dict[str, Any]:
        found = super().identity()
        if self.noise_classes is None:
            del found["noise_classes"]  # as it was before it could be named
        return found

    def check(self, facts: Facts) -> None:
        if self.noise_classes is not None:
            check_classes("method.noise_classes", self.noise_classes, facts.classes)
        elif not facts.gone:
            raise UserError(
                "method=unsir forgets whole classes, and this request retains rows of every class: "
                "choose scenario=whole_class, name the class to overwrite in method.noise_classes, or "
                "choose another method"
            )

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        classes = self.noise_classes or problem.gone
        noise = self.noise(problem, classes)
        sample = some_of_each(problem.retain, self.retain_per_class, conditions.streams("sample"))
        labels = torch.tensor(classes).repeat_interleave(self.noise_batch_size)
        impaired = with_noise(sample, noise, labels, self.noise_copies)
        alternate([Phase(model, impaired, self, conditions, name="impair")], self.epochs)
        repair = replace(
            self, epochs=self.repair_epochs, batch_size=self.repair_batch_size, lr=self.repair_lr
        )
        phase = Phase(model, sample, repair, conditions, name="repair")
        alternate([phase], self.repair_epochs)
        return model

    def noise(self, problem: Problem, classes: list[int]) -> Tensor:
        """Learn (len(classes)·B, C, H, W) normalised images, B per class, in the order of `classes`.

        If the budget ends early, the remaining steps are left out.
        """
        shape = problem.retain.images.shape[1:]
        device, rng = problem.retain.images.device, problem.conditions.streams("noise")
        learned = []
        for label in classes:
            drawn = torch.randn(self.noise_batch_size, *shape, generator=rng)  # n ~ N(0, 1)
            images = drawn.to(device).requires_grad_()
            self.raise_loss(images, label, problem)
            learned.append(images.detach())
        return torch.cat(learned)

    def raise_loss(self, images: Tensor, label: int, problem: Problem) -> None:
        """Move (B, C, H, W) images up the loss of a label, in place; leave the model and its gradients
        unchanged."""
        model, conditions = problem.model.eval(), problem.conditions
        optimizer = torch.optim.Adam([images], self.noise_lr)
        labels = torch.full((len(images),), label, device=images.device)
        for _ in range(self.noise_steps):
            if not conditions.meter.spend(len(images)):
                return
            with autocast(conditions.bf16, images.device):
                logits = model(images).float()
            # mean‖n‖² over the images
            size = images.square().sum((1, 2, 3)).mean()
            raised = F.cross_entropy(logits, labels)
            # descend λ·mean‖n‖² − CE(f_o(n), c), that is, climb its negative
            (images.grad,) = torch.autograd.grad(self.noise_penalty * size - raised, images)
            optimizer.step()
        if self.noise_steps:
            conditions.log({"noise_loss": raised.item()})


@dataclass(frozen=True, eq=False)
class Noisy(Split):
    """A split with learned images: row −1 − i stands for image i of `noise` (n, C, H, W).

    Learned images are in the model's units: they are neither normalised nor augmented.
    """

    noise: Tensor = field(default_factory=lambda: torch.empty(0))

    def batches(
        self,
        size: int,
        order: torch.Generator | None = None,
        augment: torch.Generator | None = None,
    ) -> Iterator[Batch]:
        for batch in super().batches(size, order, augment):
            learned = batch.rows < 0
            images = batch.images.clone()  # batches are views of a larger chunk
            images[learned] = self.noise[-1 - batch.rows[learned]]
            yield batch._replace(images=images)


def with_noise(sample: Split, noise: Tensor, labels: Tensor, copies: int) -> Noisy:
    """Return the sample followed by `copies` copies of the learned images.

    `noise` is (n, C, H, W) and `labels` (n,) int64.
    """
    # Row −1 − i names image i, and no row of the data set is negative.
    stand_in = -1 - torch.arange(len(noise)).repeat(copies).to(sample.rows)
    both = replace(sample, fine=None).joined(
        Split(
            images=sample.images.new_zeros(len(stand_in), *sample.images.shape[1:]),
            labels=labels.repeat(copies).to(sample.labels),
            rows=stand_in,
            pixels=sample.pixels,
        )
    )
    return Noisy(both.images, both.labels, both.rows, both.pixels, noise=noise)


def some_of_each(split: Split, most: int, rng: torch.Generator) -> Split:
    """Draw at most `most` rows of every class at random; return them in their old order."""
    order = torch.randperm(len(split), generator=rng).to(split.rows.device)
    labels = split.labels[order]
    chosen = [order[labels == label][:most] for label in split.labels.unique()]
    return split.take(torch.cat(chosen).sort().values)
