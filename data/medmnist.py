"""MedMNIST's data sets (Yang et al. 2023), from their .npz files, which are not fetched."""

import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np

from data.errors import UserError
from data.sources import Source
from data.split import Dataset

# The arrays of a file. The validation rows are left out: no method here is chosen by them.
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class OrganAMNIST(Source):
    """34,561 training and 17,778 test images of abdominal organs in axial CT, 28×28 pixels, 11 classes.

    `organamnist.npz` lies in the data root.
    """

    kind: ClassVar[str] = "data.medmnist.OrganAMNIST"

    classes, size, channels = 11, 28, 1
    names = (
        "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
        "lung-left", "lung-right", "pancreas", "spleen",
    )  # fmt: skip

    def load(self, root: Path, download: bool) -> Dataset:
        """Raise UserError if the file is missing, or is not of this data set."""
        found = _arrays(root / "organamnist.npz", self.size, self.classes)
        train_images, train_labels, test_images, test_labels = found
        return Dataset(
            self.split(train_images[:, None], train_labels[:, 0]),
            self.split(test_images[:, None], test_labels[:, 0]),
            self.classes,
        )


def _arrays(path: Path, size: int, classes: int) -> list[np.ndarray]:
    """Return images (N, size, size) and labels (N, 1) of the training, then of the test part."""
    if not path.is_file():
        raise UserError(
            f"{path} is missing: fetch {path.name} of 28 pixels a side from the MedMNIST collection "
            "(medmnist.com) and put it there, or set data.root (or UNLEARN_DATA) to its folder"
        )
    try:
        with np.load(path) as file:
            found = [file[name] for name in ARRAYS]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no file of MedMNIST ({error}): fetch it again") from error
    for images, labels in (found[:2], found[2:]):
        fits = images.shape == (len(labels), size, size) and labels.shape == (len(images), 1)
        if not fits or labels.min() < 0 or labels.max() >= classes:
            raise UserError(
                f"{path} holds images {images.shape} and labels {labels.shape}, where {size} × {size} "
                f"pixels and {classes} classes are expected: fetch the file of 28 pixels"
            )
    return found
