"""UNSIR: teach noise under the forgotten class's name, then repair.

Idea: images that raise the loss of a class as far as they can, learned as that class, overwrite it; the
class's own images are not needed.
Update rule: for every whole forgotten class c, from random images n: `noise_steps` steps of Adam up
CE(f_o(n), c) − λ·mean‖n‖² (`noise_penalty` is λ); impair: θ ← θ − η ∇CE on `noise_copies` of them,
labelled c, and up to `retain_per_class` retained rows of every class; repair: θ ← θ − η' ∇CE on those
rows.
Needs: retained rows, and the names of whole classes; other requests are refused, as noise under the name
of a class that stays would overwrite it all. In a request to relabel the old class goes, and its images
are retained ones under the new label.
Differs from the reference code: the noise steps leave nothing behind. There they add to the model's
gradients, so that the first step of impairing is a sum of all of them and spoils Adam's averages, and
run in training mode. Its first version labels all noise as class 0, and takes three channels only.
Reference: Tarun et al., Fast Yet Effective Machine Unlearning, TNNLS 2023; numbers of SSD's version.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import UserError
from data.split import Batch, Split
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import at_least_one, batch_fits, zero_or_more
from methods.training.descent import Descent
from methods.training.loop import Phase, alternate
from models.precision import autocast


@dataclass(frozen=True)
class Unsir(Descent, Method):
    """`epochs`, `batch_size` and `lr` are those of impairing."""

    kind: ClassVar[str] = "methods.unsir.Unsir"
    access: ClassVar[Access] = Access.RETAIN
    noise_batch_size: int
    noise_steps: int
    noise_lr: float
    noise_penalty: float
    noise_copies: int
    retain_per_class: int
    repair_epochs: int
    repair_batch_size: int
    repair_lr: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        sizes = ("noise_batch_size", "noise_copies", "retain_per_class", "repair_batch_size")
        at_least_one(option, self, *sizes)
        others = ("noise_steps", "noise_lr", "noise_penalty", "repair_epochs", "repair_lr")
        zero_or_more(option, self, *others)

    def check(self, facts: Facts) -> None:
        if not facts.gone:
            raise UserError(
                "method=unsir forgets whole classes, and this request leaves rows of every class: "
                "choose scenario=whole_class, or another method"
            )
        batch_fits("method", self, facts.retain, "the retained part", "repair_batch_size")

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        kept = set(problem.retain.labels.unique().tolist())
        gone = [label for label in range(problem.classes) if label not in kept]
        noise = self.noise(problem, gone)
        sample = some_of_each(problem.retain, self.retain_per_class, conditions.streams("sample"))
        labels = torch.tensor(gone).repeat_interleave(self.noise_batch_size)
        impaired = with_noise(sample, noise, labels, self.noise_copies)
        alternate([Phase(model, impaired, self, conditions, name="impair")], self.epochs)
        repair = replace(
            self, epochs=self.repair_epochs, batch_size=self.repair_batch_size, lr=self.repair_lr
        )
        phase = Phase(model, sample, repair, conditions, name="repair")
        alternate([phase], self.repair_epochs)
        return model

    def noise(self, problem: Problem, gone: list[int]) -> Tensor:
        """(len(gone)·B, C, H, W) learned images, in the order of the classes, in the model's own units;
        less trained where the budget ends early."""
        shape = problem.retain.images.shape[1:]
        device, rng = problem.retain.images.device, problem.conditions.streams("noise")
        learned = []
        for label in gone:
            drawn = torch.randn(self.noise_batch_size, *shape, generator=rng)
            images = drawn.to(device).requires_grad_()
            self.raise_loss(images, label, problem)
            learned.append(images.detach())
        return torch.cat(learned)

    def raise_loss(self, images: Tensor, label: int, problem: Problem) -> None:
        """Moves the images; the model keeps its weights, and has no gradients afterwards."""
        model, conditions = problem.model.eval(), problem.conditions
        optimizer = torch.optim.Adam([images], self.noise_lr)
        labels = torch.full((len(images),), label, device=images.device)
        for _ in range(self.noise_steps):
            if not conditions.meter.spend(len(images)):
                return
            with autocast(conditions.bf16, images.device):
                logits = model(images).float()
            size = images.square().sum((1, 2, 3)).mean()
            raised = F.cross_entropy(logits, labels)
            (images.grad,) = torch.autograd.grad(self.noise_penalty * size - raised, images)
            optimizer.step()
        if self.noise_steps:
            conditions.log({"noise_loss": raised.item()})


@dataclass(frozen=True, eq=False)
class Noisy(Split):
    """A split in which row −1 − i stands for learned image i of `noise`, (n, C, H, W), as it is: neither
    normalised nor augmented."""

    noise: Tensor = field(default_factory=lambda: torch.empty(0))

    def batches(
        self,
        size: int,
        order: torch.Generator | None = None,
        augment: torch.Generator | None = None,
    ) -> Iterator[Batch]:
        for batch in super().batches(size, order, augment):
            learned = batch.rows < 0
            images = batch.images.clone()  # batches are views of a larger piece
            images[learned] = self.noise[-1 - batch.rows[learned]]
            yield batch._replace(images=images)


def with_noise(sample: Split, noise: Tensor, labels: Tensor, copies: int) -> Noisy:
    """The sample, and so many copies of the learned images under these labels."""
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
    """At most so many rows of every class, drawn at random."""
    order = torch.randperm(len(split), generator=rng).to(split.rows.device)
    labels = split.labels[order]
    chosen = [order[labels == label][:most] for label in split.labels.unique()]
    return split.take(torch.cat(chosen).sort().values)
