"""A small CNN whose training waits, so that a test has the time to disturb it."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from models.small_cnn import SmallCNN

# The environment variable with a file's path. Trainings wait at every step while that file is missing.
GO = "UNLEARN_TEST_GO"


@dataclass(frozen=True)
class Waiting(SmallCNN):
    """`pause` is the time in seconds that each training step waits. Without `GO` none does."""

    kind: ClassVar[str] = "tests.waiting.Waiting"
    pause: float

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        return nn.Sequential(Pause(self.pause), super().build(channels, size, classes))


class Pause(nn.Module):
    """The images themselves, after a pause."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        if self.training and GO in os.environ and not Path(os.environ[GO]).exists():
            time.sleep(self.seconds)
        return images
