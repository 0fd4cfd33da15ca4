"""torchvision's architectures for any number of channels, without layers that couple the samples."""

from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Annotated, ClassVar

from torch import nn

from data.bounds import SIZE
from data.errors import UserError
from models.architecture import Architecture


class Stem(Enum):
    """The first layers of a ResNet.

    `imagenet` has a 7×7 convolution of stride 2 and max pooling, `cifar` a 3×3 convolution of stride 1
    and no pooling.
    """

    imagenet = "imagenet"
    cifar = "cifar"


class Depth(Enum):
    """The ResNets of He et al. 2016 by their number of layers, under torchvision's names."""

    resnet18 = "resnet18"
    resnet50 = "resnet50"


@dataclass(frozen=True)
class ResNet(Architecture):
    """A ResNet with GroupNorm of `groups` groups in place of BatchNorm, which couples samples.

    `groups` must divide the 64 channels of the first layer.
    """

    kind: ClassVar[str] = "models.torchvision_models.ResNet"

    depth: Depth
    stem: Stem
    groups: Annotated[int, SIZE]

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        import torchvision

        try:
            model = getattr(torchvision.models, self.depth.value)(
                num_classes=classes, norm_layer=partial(nn.GroupNorm, self.groups)
            )
        except ValueError as error:
            raise UserError(
                f"model.groups={self.groups} must divide the 64 channels of the first layer: choose 32"
            ) from error
        cifar = self.stem is Stem.cifar
        if cifar or channels != model.conv1.in_channels:
            kernel, stride, padding = (3, 1, 1) if cifar else (7, 2, 3)
            model.conv1 = nn.Conv2d(channels, 64, kernel, stride, padding, bias=False)
            # torchvision's initialisation of a ResNet's convolutions; nn.Conv2d has another one
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        if cifar:
            model.maxpool = nn.Identity()
        module: nn.Module = model
        return module


@dataclass(frozen=True)
class AlexNet(Architecture):
    """AlexNet (Krizhevsky 2014), for images of at least 63 pixels a side."""

    kind: ClassVar[str] = "models.torchvision_models.AlexNet"

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        from torchvision.models import alexnet

        if size < 63:
            raise UserError(f"AlexNet needs 63 pixels a side, not {size}: set model.input_size=63")
        model = alexnet(num_classes=classes)
        if channels != 3:
            model.features[0] = nn.Conv2d(channels, 64, 11, 4, 2)
        module: nn.Module = model
        return module
