"""The small CNN of the MNIST papers: two convolutions, one pooling, two linear layers."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from data.bounds import SIZE
from data.errors import UserError
from models.architecture import Architecture


@dataclass(frozen=True)
class SmallCNN(Architecture):
    """conv3×3–conv3×3–maxpool2–fc–fc without padding, for images of at least 6 pixels a side.

    `widths` are the channels of the two convolutions, and `hidden` the features of the first linear
    layer. With [32, 64] and 128 it has 1,199,882 parameters on MNIST. This is paper 000's network
    without its dropout, so that the gradient of a sample depends on the sample and the weights alone.
    """

    kind: ClassVar[str] = "models.small_cnn.SmallCNN"

    widths: list[Annotated[int, SIZE]]
    hidden: Annotated[int, SIZE]

    def check(self) -> None:
        super().check()
        if len(self.widths) != 2:
            raise UserError(f"model.widths={self.widths}: give 2 numbers, as in model.widths=[32,64]")

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        first, second = self.widths
        side = (size - 4) // 2  # each convolution removes 2 pixels, and pooling halves the rest
        if side < 1:
            raise UserError(f"small_cnn needs 6 pixels a side, not {size}: set model.input_size=6")
        # (B, channels, size, size) → (B, first, size − 2, size − 2) → (B, second, size − 4, size − 4) →
        # (B, second, side, side) → (B, second·side²) → (B, hidden) → (B, classes)
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
