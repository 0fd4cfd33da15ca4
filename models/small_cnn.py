"""The small CNN of the MNIST papers: two convolutions, one pooling, two linear layers."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from data.errors import UserError
from models.architecture import Architecture


@dataclass(frozen=True)
class SmallCNN(Architecture):
    """conv3×3–conv3×3–maxpool2–fc–fc without padding.

    With `widths` [32, 64] and `hidden` 128 it has 1,199,882 parameters on MNIST (paper 000's
    network; its dropout is left out, which keeps every sample's gradient a function of the sample).
    """

    kind: ClassVar[str] = "models.small_cnn.SmallCNN"

    widths: list[int]
    hidden: int

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        first, second = self.widths
        side = (size - 4) // 2
        if side < 1:
            raise UserError(f"small_cnn needs 6 pixels a side, not {size}: set model.input_size")
        return nn.Sequential(
            nn.Conv2d(channels, first, 3),
            nn.ReLU(),
            nn.Conv2d(first, second, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * side * side, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
