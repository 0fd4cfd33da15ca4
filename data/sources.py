"""Data sets: checked files read through torchvision, and scikit-learn's digits.

A source is a frozen dataclass. Its classes and their names are known before any file is read, so that an
impossible request is refused at once.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from filelock import FileLock

from data.bounds import NUMBER, PIXEL, POSITIVE
from data.class_names import CIFAR10_CLASSES, CIFAR20_CLASSES, CIFAR100_CLASSES, DIGITS, SUPERCLASS
from data.component import Component
from data.contracts import named
from data.errors import UserError
from data.split import Dataset, Pixels, Split
from data.whole import whole


@dataclass(frozen=True)
class Source(Component):
    """A data set to load, and how its pixels are prepared (see `Pixels`).

    Images are `size` × `size` pixels of `channels` channels. `names` are the names of the `classes`
    classes in order; without them, classes have numbers only. `fine_classes` and `fine_names` describe
    the finer labels within the classes; `fine_classes` is None if there are none.
    """

    mean: list[Annotated[float, PIXEL]]
    std: list[Annotated[float, POSITIVE]]
    crop: Annotated[int, NUMBER]
    flip: bool

    classes: ClassVar[int]
    names: ClassVar[Sequence[str]] = ()
    fine_classes: ClassVar[int | None] = None
    fine_names: ClassVar[Sequence[str]] = ()
    size: ClassVar[int]
    channels: ClassVar[int]

    def load(self, root: Path, download: bool) -> Dataset:
        """Return the whole data set, on the CPU. Raise UserError if a file is missing or damaged."""
        raise NotImplementedError

    def find_files(self, root: Path) -> None:
        """Raise UserError if a file is missing that no run fetches."""

    def check(self) -> None:
        """Raise UserError if the numbers do not fit these images."""
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != self.channels:
                raise UserError(
                    f"dataset.{name} has {len(numbers)} numbers for {self.channels} channels"
                )
        if self.crop > self.size:
            raise UserError(f"dataset.crop={self.crop} leaves no image: set at most {self.size} pixels")

    @property
    def class_names(self) -> Sequence[str]:
        """The name of each class, or its number if the data set has no names."""
        return self.names or tuple(map(str, range(self.classes)))

    def fine_class_names(self, option: str) -> Sequence[str]:
        """Return the name of each fine class, or its number.

        Raise UserError, naming the option that asks, if the data set has no fine labels.
        """
        if self.fine_classes is None:
            raise UserError(
                f"{option} asks for fine classes, but this data set has none: use dataset=cifar20 or "
                "dataset=digits_parity"
            )
        return self.fine_names or tuple(map(str, range(self.fine_classes)))

    def shares_images(self, other: "Source") -> bool:
        """Return whether two sources hold the images of one data set, as CIFAR-20 and CIFAR-100 do."""
        data_sets = [each for each in type(self).__mro__ if hasattr(each, "classes")]
        return any(isinstance(other, each) for each in data_sets)

    @property
    def pixels(self) -> Pixels:
        return Pixels(tuple(self.mean), tuple(self.std), self.crop, self.flip)

    def split(self, images: Any, labels: Any, fine: Any = None) -> Split:
        """Return a split of all given rows, from images (N, C, H, W) of bytes and labels (N,).

        Raise UserError if a pixel is no byte, or a label no whole number.
        """
        return Split(
            images=self._whole("images", images, np.uint8),
            labels=self._whole("labels", labels, np.int64),
            rows=torch.arange(len(labels)),
            pixels=self.pixels,
            fine=None if fine is None else self._whole("fine labels", fine, np.int64),
        )

    def _whole(self, what: str, values: Any, wanted: type[np.integer[Any]]) -> torch.Tensor:
        """Return whole numbers as a tensor of this type, which holds each of them."""
        given = np.asarray(values)
        try:
            return whole(given, wanted)
        except ValueError as error:
            cure = "bytes from 0 to 255" if wanted is np.uint8 else "whole numbers from 0"
            raise UserError(
                f"{named(self, 'load')} splits {what} that are {error}: give {cure}"
            ) from error


class Digits(Source):
    """scikit-learn's 1,797 handwritten digits, 8×8, which come with the library.

    Every fifth row is a test row, which makes 1,438 training and 359 test images.
    """

    kind: ClassVar[str] = "data.sources.Digits"

    classes, size, channels = 10, 8, 1
    names = DIGITS

    def load(self, root: Path, download: bool) -> Dataset:
        images, labels = _digits()
        test = np.arange(len(images)) % 5 == 4
        return Dataset(
            self.split(images[~test], labels[~test]),
            self.split(images[test], labels[test]),
            self.classes,
        )


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels, which splits copy; the file is a text, and slow to read."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], digits.target


class DigitsParity(Digits):
    """scikit-learn's digits in two classes, even and odd; the 10 digits are the fine labels."""

    kind: ClassVar[str] = "data.sources.DigitsParity"

    classes, fine_classes = 2, 10
    names, fine_names = ("even", "odd"), DIGITS

    def load(self, root: Path, download: bool) -> Dataset:
        return _grouped(super().load(root, download), torch.arange(10) % 2, self.classes)


class MNIST(Source):
    """60,000 training and 10,000 test images of handwritten digits, 28×28 (LeCun et al. 1998)."""

    kind: ClassVar[str] = "data.sources.MNIST"

    classes, size, channels = 10, 28, 1
    names = DIGITS

    # torchvision checks the compressed files, and those only while downloading. These are the md5 of the
    # unpacked files, which it reads.
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
    names = CIFAR10_CLASSES

    def load(self, root: Path, download: bool) -> Dataset:
        from torchvision.datasets import CIFAR10 as Reader

        return _cifar(self, Reader, root, download)


class CIFAR100(Source):
    """50,000 training and 10,000 test colour images of 100 classes, 32×32 (Krizhevsky 2009)."""

    kind: ClassVar[str] = "data.sources.CIFAR100"

    classes, size, channels = 100, 32, 3
    names = CIFAR100_CLASSES

    def load(self, root: Path, download: bool) -> Dataset:
        from torchvision.datasets import CIFAR100 as Reader

        return _cifar(self, Reader, root, download)


class CIFAR20(CIFAR100):
    """CIFAR-100 in its 20 superclasses; the 100 classes are the fine labels."""

    kind: ClassVar[str] = "data.sources.CIFAR20"

    classes, fine_classes = 20, 100
    names, fine_names = CIFAR20_CLASSES, CIFAR100_CLASSES

    def load(self, root: Path, download: bool) -> Dataset:
        # torchvision reads the fine labels only, although the files hold both.
        return _grouped(super().load(root, download), torch.tensor(SUPERCLASS), self.classes)


def _grouped(dataset: Dataset, coarse: torch.Tensor, classes: int) -> Dataset:
    """Return the data set with its labels as fine labels, and the class of each from `coarse`."""

    def grouped(split: Split) -> Split:
        return replace(split, labels=coarse[split.labels], fine=split.labels)

    return Dataset(grouped(dataset.train), grouped(dataset.test), classes)


def _cifar(source: Source, reader: Any, root: Path, download: bool) -> Dataset:
    """Return one of the CIFAR data sets, whose images torchvision keeps as (N, H, W, C)."""
    train, test = (
        source.split(part.data.transpose(0, 3, 1, 2), part.targets)
        for part in _read(reader, _cifar_files(reader), root, download)
    )
    return Dataset(train, test, source.classes)


def _cifar_files(reader: Any) -> dict[str, str]:
    listed: Sequence[tuple[str, str]] = [*reader.train_list, *reader.test_list]
    files = {f"{reader.base_folder}/{name}": md5 for name, md5 in listed}
    return files | {f"{reader.base_folder}/{reader.meta['filename']}": reader.meta["md5"]}


def _read(
    reader: Callable[..., Any], files: dict[str, str], root: Path, download: bool
) -> tuple[Any, Any]:
    """Return torchvision's training and test parts after checking every file by its md5."""
    damaged = _damaged(files, root)
    if damaged and download:
        _download(reader, files, root)
        damaged = _damaged(files, root)
    if damaged:
        missing = not (root / damaged[0]).exists()
        raise UserError(
            f"{root / damaged[0]} {'is missing' if missing else 'is damaged (its md5 differs)'}; "
            "set data.root (or UNLEARN_DATA) to the folder that holds it, "
            "or fetch it with data.download=true"
        )
    return reader(root, train=True), reader(root, train=False)


def _download(reader: Callable[..., Any], files: dict[str, str], root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"):  # the jobs of a sweep start together
            for name in _damaged(files, root):  # torchvision would keep a damaged MNIST file
                (root / name).unlink(missing_ok=True)
            reader(root, train=True, download=True)
    except Exception as error:  # network, mirror or disk: torchvision raises many kinds
        raise UserError(
            f"could not download the data set to {root} ({_reason(error)}); "
            "copy the files there by hand, or point data.root at a folder that holds them"
        ) from error


def _reason(error: Exception) -> str:
    """Return the last line of the error, which is the failure of the last mirror."""
    last = (str(error).splitlines() or [type(error).__name__])[-1]
    return re.sub(r"<urlopen error (?:\[Errno -?\d+\] )?(.*)>", r"\1", last)


def _damaged(files: dict[str, str], root: Path) -> list[str]:
    """Return the files that are missing or have another md5."""
    return [name for name, md5 in files.items() if not is_sound(root / name, md5)]


def is_sound(path: Path, md5: str) -> bool:
    """Return whether a file exists and has this md5."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5
