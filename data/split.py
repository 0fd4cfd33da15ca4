"""Images and labels as tensors on one device, and the batches drawn from them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows prepared by one set of tensor calls. Enough to make the calls' own cost small beside the work
# for batches of 64, few enough that the prepared floats stay in a CPU's last-level cache.
CHUNK = 1024


class Batch(NamedTuple):
    """One batch: `images` (B, C, H, W) float32 normalised, `labels` (B,) int64, `rows` (B,) int64."""

    images: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Pixels:
    """How stored bytes become a model's input.

    `mean` and `std` are per channel, in units of the full range (0 to 1). `crop` is the padding in
    pixels of a random crop, `flip` a horizontal flip with probability one half; both only happen
    where a generator for them is given.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int = 0
    flip: bool = False

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8 to float32 with mean 0 and deviation 1 per channel of the data set."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        std = torch.tensor(self.std, device=images.device).view(shape) * 255
        return images.to(torch.float32).sub_(mean).div_(std)

    def augment(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """A random crop and flip of each image; (N, C, H, W) uint8 in and out."""
        n, _, height, width = images.shape
        if self.crop:
            shift = torch.randint(2 * self.crop + 1, (2, n), generator=rng).to(images.device)
            padded = F.pad(images, (self.crop,) * 4)
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)
            images = windows[torch.arange(n, device=images.device), :, shift[0], shift[1]]
        if self.flip:
            flipped = torch.rand(n, generator=rng).to(images.device) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
        return images


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a data set.

    `images` (N, C, H, W) uint8; `labels` (N,) int64; `rows` (N,) int64, each row's position in the
    whole training or test set, which stays with it through every selection; `fine` (N,) int64, the
    finer labels of a data set that has two levels.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    pixels: Pixels
    fine: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, where: Tensor) -> "Split":
        """The rows at these positions of this split, or where this mask is true."""
        fine = None if self.fine is None else self.fine[where]
        return replace(
            self,
            images=self.images[where],
            labels=self.labels[where],
            rows=self.rows[where],
            fine=fine,
        )

    def only(self, rows: Tensor) -> "Split":
        """The part whose rows are among these."""
        return self.take(torch.isin(self.rows, rows.to(self.rows.device)))

    def without(self, rows: Tensor) -> "Split":
        """The part whose rows are not among these."""
        return self.take(~torch.isin(self.rows, rows.to(self.rows.device)))

    def relabelled(self, labels: Tensor) -> "Split":
        """The same images under other labels, (N,) int64."""
        return replace(self, labels=labels.to(self.labels))

    def joined(self, other: "Split") -> "Split":
        """This split's rows followed by the other's."""
        both = self.fine is not None and other.fine is not None
        return replace(
            self,
            images=torch.cat([self.images, other.images]),
            labels=torch.cat([self.labels, other.labels]),
            rows=torch.cat([self.rows, other.rows]),
            fine=torch.cat([self.fine, other.fine]) if both else None,  # type: ignore[list-item]
        )

    def to(self, device: torch.device) -> "Split":
        fine = None if self.fine is None else self.fine.to(device)
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            rows=self.rows.to(device),
            fine=fine,
        )

    def batches(
        self,
        size: int,
        order: torch.Generator | None = None,
        augment: torch.Generator | None = None,
    ) -> Iterator[Batch]:
        """One pass in batches of `size` rows (the last may be smaller).

        `order` shuffles; without it rows come as they lie. `augment` draws the random crops and
        flips; without it images are as stored. A CPU generator gives the same pass on every device.
        """
        n = len(self)
        shuffled = None
        if order is not None:
            shuffled = torch.randperm(n, generator=order).to(self.rows.device)
        step = size * max(1, CHUNK // size)
        for start in range(0, n, step):
            where: slice | Tensor = slice(start, start + step)
            if shuffled is not None:
                where = shuffled[where]
            images = self.images[where]
            if augment is not None:
                images = self.pixels.augment(images, augment)
            yield from map(
                Batch,
                self.pixels.normalise(images).split(size),
                self.labels[where].split(size),
                self.rows[where].split(size),
            )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split of images of `classes` classes."""

    train: Split
    test: Split
    classes: int

    def to(self, device: torch.device) -> "Dataset":
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def limited(self, per_class: int) -> "Dataset":
        """The first `per_class` rows of every class (of every fine class, where there are such) of
        the training split, and of the test split. Rows keep their positions in the whole set."""
        return replace(self, train=_first(self.train, per_class), test=_first(self.test, per_class))

    def thinned(self, label: int, rows: int) -> "Dataset":
        """Only the first `rows` training rows of one class: a rare class. The test split stays."""
        gone = self.train.rows[(self.train.labels == label).nonzero()[rows:, 0]]
        return replace(self, train=self.train.without(gone))


def _first(split: Split, per_class: int) -> Split:
    labels = split.labels if split.fine is None else split.fine
    keep = [(labels == label).nonzero()[:per_class, 0] for label in labels.unique()]
    return split.take(torch.cat(keep).sort().values)
