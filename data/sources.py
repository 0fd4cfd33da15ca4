"""Where a data set comes from: checked files, read through torchvision, or scikit-learn's digits.

A source is a frozen dataclass; what it says before anything is loaded (`classes`, `fine_classes`)
is enough to refuse an impossible request at once.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock

from data.component import Component
from data.errors import UserError
from data.split import Dataset, Pixels, Split


@dataclass(frozen=True)
class Source(Component):
    """A data set that can be loaded, and how its pixels are prepared (see `Pixels`)."""

    mean: list[float]
    std: list[float]
    crop: int
    flip: bool

    classes: ClassVar[int]
    fine_classes: ClassVar[int | None] = None
    size: ClassVar[int]
    channels: ClassVar[int]

    def load(self, root: Path, download: bool) -> Dataset:
        """The whole data set, on the CPU. Raises UserError where a file is missing or damaged."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises UserError for numbers that describe no preparation of these images."""
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != self.channels:
                raise UserError(
                    f"dataset.{name} has {len(numbers)} numbers for {self.channels} channels"
                )
        if not all(map(math.isfinite, [*self.mean, *self.std])):
            raise UserError("dataset.mean and dataset.std must be finite")
        if min(self.std) <= 0 or self.crop < 0:
            raise UserError("dataset.std must be above 0, and dataset.crop not below")

    @property
    def pixels(self) -> Pixels:
        return Pixels(tuple(self.mean), tuple(self.std), self.crop, self.flip)

    def split(self, images: Any, labels: Any, fine: Any = None) -> Split:
        """A split of all given rows; images (N, C, H, W) bytes, labels (N,) integers."""
        return Split(
            images=torch.as_tensor(images, dtype=torch.uint8).contiguous(),
            labels=torch.as_tensor(labels, dtype=torch.int64),
            rows=torch.arange(len(labels)),
            pixels=self.pixels,
            fine=None if fine is None else torch.as_tensor(fine, dtype=torch.int64),
        )


class Digits(Source):
    """scikit-learn's 1,797 handwritten digits, 8×8, which come with the library.

    Every fifth row is a test row: 1,438 training and 359 test images.
    """

    kind: ClassVar[str] = "data.sources.Digits"

    classes, size, channels = 10, 8, 1

    def load(self, root: Path, download: bool) -> Dataset:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        test = np.arange(len(images)) % 5 == 4
        return Dataset(
            self.split(images[~test], digits.target[~test]),
            self.split(images[test], digits.target[test]),
            self.classes,
        )


class MNIST(Source):
    """60,000 training and 10,000 test images of handwritten digits, 28×28 (LeCun et al. 1998)."""

    kind: ClassVar[str] = "data.sources.MNIST"

    classes, size, channels = 10, 28, 1

    # torchvision checks the compressed files only, and only while downloading; these are the md5 of
    # what it unpacks and reads.
    files: ClassVar = {
        "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    def load(self, root: Path, download: bool) -> Dataset:
        from torchvision.datasets import MNIST as Reader

        train, test = _read(Reader, self.files, root, download)
        return Dataset(
            self.split(train.data[:, None], train.targets),
            self.split(test.data[:, None], test.targets),
            self.classes,
        )


class CIFAR10(Source):
    """50,000 training and 10,000 test colour images, 32×32 (Krizhevsky 2009)."""

    kind: ClassVar[str] = "data.sources.CIFAR10"

    classes, size, channels = 10, 32, 3

    def load(self, root: Path, download: bool) -> Dataset:
        from torchvision.datasets import CIFAR10 as Reader

        train, test = _read(Reader, _cifar_files(Reader), root, download)
        return Dataset(
            self.split(train.data.transpose(0, 3, 1, 2), train.targets),
            self.split(test.data.transpose(0, 3, 1, 2), test.targets),
            self.classes,
        )


class CIFAR100(Source):
    """50,000 training and 10,000 test colour images of 100 classes, 32×32 (Krizhevsky 2009)."""

    kind: ClassVar[str] = "data.sources.CIFAR100"

    classes, size, channels = 100, 32, 3

    def load(self, root: Path, download: bool) -> Dataset:
        from torchvision.datasets import CIFAR100 as Reader

        train, test = _read(Reader, _cifar_files(Reader), root, download)
        return Dataset(
            self.split(train.data.transpose(0, 3, 1, 2), train.targets),
            self.split(test.data.transpose(0, 3, 1, 2), test.targets),
            self.classes,
        )


class CIFAR20(CIFAR100):
    """CIFAR-100 under its 20 superclasses; the 100 classes stay as the fine labels."""

    kind: ClassVar[str] = "data.sources.CIFAR20"

    classes, fine_classes = 20, 100

    def load(self, root: Path, download: bool) -> Dataset:
        fine = super().load(root, download)
        # The files hold the superclass of every image, but torchvision reads the fine label only.
        # Which superclass a fine class belongs to is a table of 100 numbers, checked in the tests
        # against the files.
        coarse = torch.tensor(SUPERCLASS)

        def raised(split: Split) -> Split:
            return replace(split, labels=coarse[split.labels], fine=split.labels)

        return Dataset(raised(fine.train), raised(fine.test), self.classes)


# fmt: off
SUPERCLASS = (
     4,  1, 14,  8,  0,  6,  7,  7, 18,  3,  3, 14,  9, 18,  7, 11,  3,  9,  7, 11,
     6, 11,  5, 10,  7,  6, 13, 15,  3, 15,  0, 11,  1, 10, 12, 14, 16,  9, 11,  5,
     5, 19,  8,  8, 15, 13, 14, 17, 18, 10, 16,  4, 17,  4,  2,  0, 17,  4, 18, 17,
    10,  3,  2, 12, 12, 16, 12,  1,  9, 19,  2, 10,  0,  1, 16, 12,  9, 13, 15, 13,
    16, 19,  2,  4,  6, 19,  5,  5,  8, 19, 18,  1,  2, 15,  6,  0, 17,  8, 14, 13,
)
# fmt: on


def _cifar_files(reader: Any) -> dict[str, str]:
    listed: Sequence[tuple[str, str]] = [*reader.train_list, *reader.test_list]
    files = {f"{reader.base_folder}/{name}": md5 for name, md5 in listed}
    return files | {f"{reader.base_folder}/{reader.meta['filename']}": reader.meta["md5"]}


def _read(
    reader: Callable[..., Any], files: dict[str, str], root: Path, download: bool
) -> tuple[Any, Any]:
    """torchvision's reader of the training and of the test part, after every file was checked."""
    if download:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"):  # the jobs of a sweep start together
            _download(reader, files, root)
    if damaged := _damaged(files, root):
        missing = not (root / damaged[0]).exists()
        raise UserError(
            f"{root / damaged[0]} {'is missing' if missing else 'is damaged (its md5 differs)'}; "
            "set data.root (or UNLEARN_DATA) to the folder that holds it, "
            "or fetch it with data.download=true"
        )
    return reader(root, train=True), reader(root, train=False)


def _download(reader: Callable[..., Any], files: dict[str, str], root: Path) -> None:
    damaged = _damaged(files, root)
    if not damaged:
        return
    for name in damaged:  # torchvision would take a damaged MNIST file for a good one
        (root / name).unlink(missing_ok=True)
    try:
        reader(root, train=True, download=True)
    except Exception as error:  # network, mirror or disk: torchvision raises many kinds
        raise UserError(
            f"could not download {damaged[0]} to {root} ({error}); "
            "copy the files there by hand, or point data.root at a folder that holds them"
        ) from error


def _damaged(files: dict[str, str], root: Path) -> list[str]:
    """The files that are missing or not what they should be."""
    return [name for name, md5 in files.items() if not _is_sound(root / name, md5)]


def _is_sound(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5
