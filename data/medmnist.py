"""MedMNIST's data sets (Yang et al. 2023), from their .npz files, which are not fetched."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from data.errors import UserError
from data.sources import Source, is_sound
from data.split import Dataset

FILE = "organamnist.npz"

# The end of a sentence on a missing or another file.
CURE = (
    f"fetch {FILE} of MedMNIST's version 3, 28 pixels a side (medmnist.com) and put it there, or set "
    "data.root (or UNLEARN_DATA) to its folder"
)

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

    # of MedMNIST's version 3; version 2 has a file of the same name with 34,581 training images
    md5: ClassVar[str] = "68e3f8846a6bd62f0c9bf841c0d9eacc"

    def find_files(self, root: Path) -> None:
        if not (path := root / FILE).is_file():
            raise UserError(f"{path} is missing: {CURE}")

    def load(self, root: Path, download: bool) -> Dataset:
        """Raise UserError if the file is missing, or is another one."""
        self.find_files(root)
        found = _arrays(root / FILE, self.md5)
        train_images, train_labels, test_images, test_labels = found
        return Dataset(
            self.split(train_images[:, None], train_labels[:, 0]),
            self.split(test_images[:, None], test_labels[:, 0]),
            self.classes,
        )


def _arrays(path: Path, md5: str) -> list[np.ndarray]:
    """Return images (N, H, W) and labels (N, 1) of the training, then of the test part."""
    if not is_sound(path, md5):
        raise UserError(f"{path} is another file or damaged (its md5 differs): {CURE}")
    with np.load(path) as file:
        return [file[name] for name in ARRAYS]
