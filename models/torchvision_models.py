"""torchvision's architectures, without batch-coupled layers and for any number of channels."""

from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import ClassVar

from torch import nn

from data.errors import UserError
from models.architecture import Architecture


class Stem(Enum):
    """`imagenet`: 7×7 stride 2 and max pooling; `cifar`: 3×3 stride 1 and no pooling."""

    imagenet = "imagenet"
    cifar = "cifar"


class Depth(Enum):
    """The ResNets of He et al. 2016 by their number of layers, as torchvision calls them."""

    resnet18 = "resnet18"
    resnet50 = "resnet50"


@dataclass(frozen=True)
class ResNet(Architecture):
    """A ResNet in which GroupNorm with `groups` groups stands for BatchNorm, which couples samples."""

    kind: ClassVar[str] = "models.torchvision_models.ResNet"

    depth: Depth
    stem: Stem
    groups: int

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        import torchvision

        try:
            model = getattr(torchvision.models, self.depth.value)(
                num_classes=classes, norm_layer=partial(nn.GroupNorm, self.groups)
            )
        except ValueError as error:
            raise UserError(
                f"model.groups={self.groups} must divide the 64 channels of the first layer"
            ) from error
        cifar = self.stem is Stem.cifar
        if cifar or channels != model.conv1.in_channels:
            kernel, stride, padding = (3, 1, 1) if cifar else (7, 2, 3)
            model.conv1 = nn.Conv2d(channels, 64, kernel, stride, padding, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        if cifar:
            model.maxpool = nn.Identity()
        module: nn.Module = model
        return module


@dataclass(frozen=True)
class AlexNet(Architecture):
    """AlexNet (Krizhevsky 2014); its inputs need at least 63 pixels a side."""

    kind: ClassVar[str] = "models.torchvision_models.AlexNet"

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        from torchvision.models import alexnet

        if size < 63:
            raise UserError(f"AlexNet needs 63 pixels, not {size}: set model.input_size")
        model = alexnet(num_classes=classes)
        if channels != 3:
            model.features[0] = nn.Conv2d(channels, 64, 11, 4, 2)
        module: nn.Module = model
        return module
