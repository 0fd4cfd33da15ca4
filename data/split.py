"""Images and labels as tensors on one device, and the batches drawn from them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import UserError

# Rows prepared by one set of tensor calls: enough that the cost of the calls is small for batches of 64,
# few enough that the prepared floats stay in the last-level cache of a CPU.
CHUNK = 1024


class Batch(NamedTuple):
    """One batch: normalised `images` (B, C, H, W) float32, `labels` (B,) int64, `rows` (B,) int64."""

    images: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Pixels:
    """The preparation of stored bytes for a model.

    `mean` and `std` are per channel, in units of the full range (0 to 1). `crop` is the padding of a
    random crop, in pixels. `flip` adds a horizontal flip with probability one half. Crops and flips need
    a generator; without one, images are as stored.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int = 0
    flip: bool = False

    def normalise(self, images: Tensor) -> Tensor:
        """Return (x / 255 - mean) / std as float32, for x (N, C, H, W) uint8."""
        shape = (1, -1, 1, 1)  # (x/255 - m)/s = (x - 255m)/(255s): scaling the constants is cheaper
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        std = torch.tensor(self.std, device=images.device).view(shape) * 255
        return images.to(torch.float32).sub_(mean).div_(std)

    def augment(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return each image with its own random crop and flip, (N, C, H, W) uint8 as given."""
        n, _, height, width = images.shape
        if self.crop:
            shift = torch.randint(2 * self.crop + 1, (2, n), generator=rng).to(images.device)
            padded = F.pad(images, (self.crop,) * 4)
            # a view of all windows, (N, C, 2·crop + 1, 2·crop + 1, H, W), of which each image takes one
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)
            images = windows[torch.arange(n, device=images.device), :, shift[0], shift[1]]
        if self.flip:
            flipped = torch.rand(n, generator=rng).to(images.device) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
        return images


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a data set.

    `images` is (N, C, H, W) uint8 and `labels` (N,) int64. `rows` (N,) int64 holds the position of each
    row in the whole training or test set, which every selection keeps. `fine` (N,) int64 holds the finer
    labels of a data set with two levels, else None.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    pixels: Pixels
    fine: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, where: Tensor) -> "Split":
        """Return the rows at these positions, or those whose entry of the mask is true."""
        fine = None if self.fine is None else self.fine[where]
        return replace(
            self,
            images=self.images[where],
            labels=self.labels[where],
            rows=self.rows[where],
            fine=fine,
        )

    def only(self, rows: Tensor) -> "Split":
        """Return the part whose rows are among these."""
        return self.take(torch.isin(self.rows, rows.to(self.rows.device)))

    def without(self, rows: Tensor) -> "Split":
        """Return the part whose rows are not among these."""
        return self.take(~torch.isin(self.rows, rows.to(self.rows.device)))

    def drawn(self, rng: torch.Generator, most: int | None = None) -> "Split":
        """Return `most` rows in random order, drawn without replacement; all if there are fewer or if
        `most` is None. A CPU generator draws the same rows on every device."""
        order = torch.randperm(len(self), generator=rng)
        return self.take(order[:most].to(self.rows.device))

    def relabelled(self, labels: Tensor) -> "Split":
        """Return the same images with other labels, (N,) int64."""
        return replace(self, labels=labels.to(self.labels))

    def joined(self, other: "Split") -> "Split":
        """Return this split's rows followed by the other's."""
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
        """Yield all rows once, in batches of `size` (the last may be smaller).

        `order` shuffles the rows; without it they keep their order. `augment` draws random crops and
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
        """Return the first `per_class` rows of every class of the training and of the test split.

        Fine classes, if there are any, take the place of classes. Rows keep their positions.
        """
        return replace(self, train=_first(self.train, per_class), test=_first(self.test, per_class))

    def thinned(self, label: int, rows: int) -> "Dataset":
        """Return the data set with only the first `rows` training rows of a class, and all test rows.

        Raise UserError if the class has no more: the keys would differ from those of the same data.
        """
        known = (self.train.labels == label).nonzero()[:, 0]
        if len(known) <= rows:
            raise UserError(
                f"data.rare=[{label}:{rows}] takes no row, as class {label} has {len(known)} training "
                "rows: keep fewer, or leave the class out of data.rare"
            )
        return replace(self, train=self.train.without(self.train.rows[known[rows:]]))


def _first(split: Split, per_class: int) -> Split:
    """Return the first `per_class` rows of every class, or fine class, in the order of the split."""
    labels = split.labels if split.fine is None else split.fine
    keep = [(labels == label).nonzero()[:per_class, 0] for label in labels.unique()]
    return split.take(torch.cat(keep).sort().values)
