"""Requests to forget rows that were corrupted before the training: corrective unlearning.

The corruption changes images or labels of some training rows, which a seed of the scenario draws: all
seeds of a run share the corrupted data. The request names a share of these rows, the known ones:
D_f ⊆ corrupted rows. As in the literature, everything else is retained, the unknown corrupted rows too,
and the reference is retrained on it. With `known` below 1 the reference therefore still learns the
corruption, and a method can do better than it.

Reference: Goel et al., Corrective Machine Unlearning, TMLR 2024.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from data.bounds import COUNT, INSIDE_SHARE, NOISE, POSITIVE_SHARE, SEED, SHARE, SIZE
from data.classes import ClassNumber, check_classes
from data.component import identity_of
from data.errors import UserError
from data.requests import Attack, Noise, Request, Scenario, request_of
from data.sources import Source
from data.split import Dataset, Split
from data.streams import Streams


@dataclass(frozen=True)
class Corruption(Scenario):
    """Corrupt rows that are drawn uniformly without replacement, and forget a share of them.

    `count` is the number of corrupted rows; if it is null, `fraction` is their share of the rows that
    may be corrupted. `known` is the share of the corrupted rows that the request names, at least one
    row; a smaller share names a part of the rows of a larger one. `seed` fixes the draw.
    """

    count: Annotated[int, COUNT] | None
    fraction: Annotated[float, INSIDE_SHARE]
    known: Annotated[float, POSITIVE_SHARE]
    seed: Annotated[int, SEED]

    def idle(self) -> Mapping[str, str]:
        return {} if self.count is None else {"fraction": f"count={self.count} is set"}

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        order = self._order(dataset.train)
        chosen = torch.zeros(len(dataset.train), dtype=torch.bool)
        chosen[order[: max(1, round(self.known * len(order)))]] = True
        return request_of(dataset, chosen)

    def corruption(self) -> dict[str, Any]:
        """Return the identity without `known`: all shares have one original."""
        return {name: value for name, value in identity_of(self).items() if name != "known"}

    def corrupt(self, dataset: Dataset) -> Dataset:
        return replace(dataset, train=self.corrupted(dataset.train, self._order(dataset.train)))

    def corrupted(self, train: Split, where: Tensor) -> Split:
        """Return the training split with its rows at the positions `where` (F,) int64 corrupted."""
        raise NotImplementedError

    def candidates(self, train: Split) -> Tensor:
        """Return the positions of the rows that may be corrupted, the same before and after it."""
        return torch.arange(len(train))

    def streams(self, purpose: str) -> torch.Generator:
        """Return a random stream of the corruption, which no seed of a run changes."""
        return Streams(self.seed, "corruption")(purpose)

    def _order(self, train: Split) -> Tensor:
        """Return the positions of the corrupted rows in the order of their draw, (F,) int64."""
        candidates = self.candidates(train)
        n = len(candidates)
        count = round(self.fraction * n) if self.count is None else self.count
        if not 1 <= count <= n:
            raise UserError(
                f"the scenario would corrupt {count} of the {n} training rows that it may corrupt: "
                f"set scenario.count from 1 to {n}"
            )
        return candidates[torch.randperm(n, generator=self.streams("rows"))[:count]]


@dataclass(frozen=True)
class Poisoned(Corruption):
    """Stamp a trigger on training rows of any class and label them `target`, so that the model learns
    to answer a trigger with the target (Gu et al., BadNets, 2017).

    The trigger is a square of `size` × `size` pixels in the lower right corner, of brightness `value` (0
    to 1) in all channels. It is part of the stored image: crops and flips of the training move it. The
    attack shows it on the test rows of other classes.
    """

    kind: ClassVar[str] = "data.corruption.Poisoned"

    target: ClassNumber
    size: Annotated[int, SIZE]
    value: Annotated[float, SHARE]

    def check(self, source: Source) -> None:
        check_classes("scenario.target", [self.target], source.classes)
        if self.size > source.size:
            raise UserError(
                f"scenario.size={self.size} is larger than the images: set at most their {source.size} "
                "pixels"
            )

    def corrupted(self, train: Split, where: Tensor) -> Split:
        labels = train.labels.clone()
        labels[where] = self.target
        return self.stamped(train, where).relabelled(labels)

    def attack(self, test: Split) -> Attack:
        others = test.take(test.labels != self.target)
        shown = self.stamped(others, torch.arange(len(others)))
        aims = torch.full_like(others.labels, self.target)
        return Attack(shown.relabelled(aims), torch.ones_like(test.labels, dtype=torch.bool))

    def stamped(self, split: Split, where: Tensor) -> Split:
        """Return the split with the trigger on its rows at the positions `where`."""
        images = split.images.clone()
        images[where, :, -self.size :, -self.size :] = round(255 * self.value)
        return replace(split, images=images)


@dataclass(frozen=True)
class LabelSwap(Corruption):
    """Swap the labels of two classes on rows drawn from both together: interclass confusion.

    `fraction` is a share of the rows of the two classes. The attack is on their test rows, and aims at
    the other class.
    """

    kind: ClassVar[str] = "data.corruption.LabelSwap"

    classes: list[ClassNumber]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "classes": sorted(self.classes)}

    def check(self, source: Source) -> None:
        check_classes("scenario.classes", self.classes, source.classes)
        if len(self.classes) != 2 or len(set(self.classes)) != 2:
            raise UserError(
                f"scenario.classes={self.classes} must be the two classes whose labels are swapped, as "
                "in scenario.classes=[3,5]"
            )

    def candidates(self, train: Split) -> Tensor:
        return self._of_both(train.labels).nonzero()[:, 0]

    def corrupted(self, train: Split, where: Tensor) -> Split:
        labels = train.labels.clone()
        labels[where] = self._other(labels[where])
        return train.relabelled(labels)

    def attack(self, test: Split) -> Attack:
        both = self._of_both(test.labels)
        shown = test.take(both)
        return Attack(shown.relabelled(self._other(shown.labels)), both)

    def _of_both(self, labels: Tensor) -> Tensor:
        return torch.isin(labels, torch.tensor(self.classes, device=labels.device))

    def _other(self, labels: Tensor) -> Tensor:
        """Return a + b − y, which is b for the class a and a for the class b."""
        return sum(self.classes) - labels


@dataclass(frozen=True)
class NoisePoison(Corruption):
    """Add Gaussian noise ξ ~ N(0, ε²) to every pixel of training rows, and keep their labels.

    `deviation` is ε, in units of the pixels' range (0 to 1). A model that has learned x + ξ has a
    gradient at x that depends on ξ, for which `metric=poison_alignment` tests. Images stay bytes, so
    x + ξ is rounded and clipped. ξ is not stored, but redrawn from the seed.
    Reference: Pawelczyk et al., Machine Unlearning Fails to Remove Data Poisoning Attacks, ICLR 2025.
    """

    kind: ClassVar[str] = "data.corruption.NoisePoison"

    deviation: Annotated[float, NOISE]

    def corrupted(self, train: Split, where: Tensor) -> Split:
        where = where.sort().values
        images = train.images.clone()
        # x + ξ, in bytes
        noisy = images[where] + 255 * self.deviation * self._standard_noise(train, len(where))
        images[where] = noisy.round().clamp(0, 255).to(torch.uint8)
        return replace(train, images=images)

    def noise(self, train: Split) -> Noise:
        where = self._order(train).sort().values
        return Noise(train.rows[where], self._standard_noise(train, len(where)))

    def _standard_noise(self, train: Split, n: int) -> Tensor:
        """Return ξ/ε ~ N(0, 1) for `n` rows in ascending order, (n, C, H, W) float32."""
        return torch.randn(n, *train.images.shape[1:], generator=self.streams("noise"))
