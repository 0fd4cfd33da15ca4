"""Class-activation maps: the pixels that speak for an image's class, in every model of the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

from torch import Tensor, nn

from data.bounds import COUNT, SEED
from data.errors import UserError
from data.requests import Request
from data.split import Dataset, Split
from data.streams import Streams
from runner.figure.drawing import Drawing, panels
from runner.figure.runs import Model, Runs
from runner.results import Line
from runner.stages import request

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# The most letters in a line above an image.
ACROSS = 18


@dataclass(frozen=True, eq=False)
class MappedImages:
    """The images of one setting, the kind of each, and their maps (N, H, W) by line of the table."""

    images: Split
    kinds: list[str]
    maps: Mapping[Line, Tensor]


@dataclass(frozen=True)
class CamFigure(Drawing):
    """Images, and beside each its map in every line of the table, for the class of its label.

    `rows` forgotten and as many retained test rows are drawn with `seed`; all of a kind if it has fewer.
    If the request names single rows, the forgotten ones are training rows. The models are those of the
    first seed of a setting, and a line without this seed is left out. All maps of an image have one
    colour scale, from 0 to the largest value among them.
    """

    rows: Annotated[int, COUNT]
    seed: Annotated[int, SEED]

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if captum is not installed, or if a model is no longer stored, does not follow
        from the options of its run, or has no convolution."""
        settings = [self._shown(models) for models in _of_one_seed(runs)]
        columns = 1 + max(len(shown.maps) for shown in settings)
        count = sum(len(shown.images) for shown in settings)
        figure, all_axes = panels(count * columns, columns, 1.7, 1.6)
        for shown in settings:
            for number in range(len(shown.images)):
                across, all_axes = all_axes[:columns], all_axes[columns:]
                _draw(across, shown, number)
                if number == 0:
                    for axes, line in zip(across[1:], shown.maps, strict=False):
                        title = "\n".join(wrap(runs.report.titles[line], ACROSS))
                        axes.set_title(title, fontsize="small")
        scale = across[1].images[0]
        figure.colorbar(scale, ax=figure.axes, label="share of the image's largest value", shrink=0.6)
        return figure

    def _shown(self, models: Mapping[Line, Model]) -> MappedImages:
        """Return the images of a setting, and their maps in its models."""
        workspace = next(iter(models.values())).workspace
        found, _ = request(workspace)
        forgotten, retained = (
            split.drawn(Streams(self.seed, "cam")("rows"), self.rows)
            for split in _kinds(workspace.dataset, found)
        )
        images = forgotten.joined(retained)
        kinds = ["forgotten"] * len(forgotten) + ["retained"] * len(retained)
        inputs = images.pixels.normalise(images.images)
        maps = {
            line: class_activation_maps(model.network, inputs, images.labels).cpu()
            for line, model in models.items()
        }
        return MappedImages(images, kinds, maps)


def class_activation_maps(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the maps (N, H, W), at least 0, of normalised images (N, C, H, W) for classes (N,).

    They are Grad-CAM's (Selvaraju et al. 2017): ReLU(Σ_k α_k A^k), upsampled bilinearly, where A^k is
    channel k of the last convolution's output and α_k the mean over its pixels of ∂z_c/∂A^k. In a
    transformer, the only convolution is the one that cuts the patches. Raise UserError if the model has
    no convolution, or if captum is not installed.
    """
    try:
        from captum.attr import LayerAttribution, LayerGradCam
    except ImportError as error:
        raise UserError('the figure cam needs captum: pip install -e ".[figures]"') from error
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise UserError(
            "a class-activation map is that of a convolution, and the model has none: leave cam out of "
            "figure=[…], or choose a model with convolutions"
        )
    maps = LayerGradCam(model.eval(), convolutions[-1]).attribute(images, labels, relu_attributions=True)
    size = tuple(images.shape[-2:])
    upsampled: Tensor = LayerAttribution.interpolate(maps.detach(), size, "bilinear")
    return upsampled.squeeze(1)


def _of_one_seed(runs: Runs) -> list[dict[Line, Model]]:
    """Return the models of every setting by line, those of its first seed."""
    settings: dict[str, dict[Line, Model]] = {}
    for line, models in runs.models.items():
        found = settings.setdefault(line.setting, {})
        seed = next(iter(found.values()), models[0]).result.seed
        found.update((line, model) for model in models if model.result.seed == seed)
    return list(settings.values())


def _kinds(dataset: Dataset, found: Request) -> tuple[Split, Split]:
    """Return the rows of which the forgotten and the retained images are drawn."""
    named = len(found.test) > 0
    forgotten = dataset.test.only(found.test) if named else dataset.train.only(found.rows)
    return forgotten, dataset.test.without(found.test)


def _draw(across: "list[Axes]", shown: MappedImages, number: int) -> None:
    """Draw an image and its maps, each in units of the largest value among them."""
    first, *others = across
    # (C, H, W) → (H, W, C), or (H, W) of a grey image
    pixels = shown.images.images[number].cpu().permute(1, 2, 0).squeeze(2).numpy()
    first.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    label = int(shown.images.labels[number])
    first.set_ylabel(f"{shown.kinds[number]}\nclass {label}", fontsize="small")
    maps = [maps[number] for maps in shown.maps.values()]
    # where no map has a positive value, all are 0: divide by 1, which leaves them so
    largest = max(float(each.max()) for each in maps) or 1.0
    for axes, each in zip(others, maps, strict=False):
        axes.imshow((each / largest).numpy(), vmin=0, vmax=1)
    for axes in across[: 1 + len(maps)]:
        axes.set(xticks=[], yticks=[])
    for axes in across[1 + len(maps) :]:
        axes.remove()
