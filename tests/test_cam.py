"""Class-activation maps: closed forms of Grad-CAM, and the figure of them."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data.errors import UserError
from data.split import Dataset
from runner.figure.cam import CamFigure, class_activation_maps
from runner.figure.runs import Runs
from runner.pipeline import run
from runner.report import Report
from runner.results import Results
from tests.conftest import LEARNED, QUICK, plan_of, stages_of, weights_in

IMAGE = torch.tensor([[[[1.0, -2.0], [3.0, -4.0]]]])


def network(convolution: nn.Conv2d, kernels: Tensor, between: nn.Module, head: Tensor) -> nn.Module:
    """Return convolution–between–linear with given weights and no biases."""
    linear = nn.Linear(head.shape[1], head.shape[0], bias=False)
    with torch.no_grad():
        convolution.weight.copy_(kernels)
        linear.weight.copy_(head)
    return nn.Sequential(convolution, between, nn.Flatten(), linear)


# Two channels, A¹ = x and A² = −x.
SIGNS = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)


def test_a_map_weighs_each_channel_by_its_mean_gradient() -> None:
    """z₀ has the gradients 1, 2, 3, 4 on A¹ and 0, 0, 0, −4 on A²: α = (2.5, −1), and the map is
    ReLU(2.5x + x). z₁ has −1 on A¹ and 0 on A²: the map is ReLU(−x)."""
    head = torch.tensor([[1.0, 2, 3, 4, 0, 0, 0, -4], [-1.0, -1, -1, -1, 0, 0, 0, 0]])
    model = network(nn.Conv2d(1, 2, 1, bias=False), SIGNS, nn.Identity(), head)
    images = IMAGE.expand(2, 1, 2, 2)
    maps = class_activation_maps(model, images, torch.tensor([0, 1]))
    assert maps.tolist() == [[[3.5, 0], [10.5, 0]], [[0, 2], [0, 4]]]


def test_the_channels_are_those_before_an_activation_in_place() -> None:
    """Where x > 0 the gradient on A¹ is 4, where x < 0 that on A² is 2, elsewhere 0: α = (2, 1). The map
    is ReLU(2x − x). After the activation, A² would be ReLU(−x), and the map positive everywhere."""
    head = torch.tensor([[4.0, 4, 4, 4, 2, 2, 2, 2]])
    model = network(nn.Conv2d(1, 2, 1, bias=False), SIGNS, nn.ReLU(inplace=True), head)
    maps = class_activation_maps(model, IMAGE, torch.tensor([0]))
    assert maps.tolist() == [[[1, 0], [3, 0]]]


def test_a_map_is_upsampled_bilinearly() -> None:
    """Means of 2 × 2 blocks are [[0, 4], [8, 12]], and α = 1. Centres of new pixels lie at ¼ and ¾
    between centres of old ones."""
    blocks = torch.tensor([[0.0, 4], [8, 12]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    model = network(
        nn.Conv2d(1, 1, 2, 2, bias=False),
        torch.full((1, 1, 2, 2), 0.25),
        nn.Identity(),
        torch.ones(1, 4),
    )
    maps = class_activation_maps(model, blocks.reshape(1, 1, 4, 4), torch.tensor([0]))
    assert maps.tolist() == [[[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]]


def test_a_model_without_convolution_is_refused() -> None:
    with pytest.raises(UserError, match=r"the model has none: leave cam out of figure=\[…\], or choose"):
        class_activation_maps(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), IMAGE, torch.tensor([0]))


def test_without_captum_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r'needs captum: pip install -e "\.\[figures\]"'):
        class_activation_maps(nn.Conv2d(1, 1, 1), IMAGE, torch.tensor([0]))


CLASS = [*QUICK, *LEARNED, "name=maps"]
DRAWN = [*QUICK, "scenario=random", "name=rows"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole class forgotten for two seeds, and random rows."""
    root = tmp_path_factory.mktemp("maps")
    for own in ([*CLASS, "seed=1"], [*CLASS, "seed=0"], DRAWN):
        run(plan_of(f"paths.root={root}", *own), own)
    return root


def runs_of(root: Path, name: str) -> Runs:
    return Runs(Report(Results(root / "results").named(name), ["test_accuracy"]), root)


def test_maps_stand_beside_their_images_in_the_order_of_the_table(root: Path, digits: Dataset) -> None:
    figure = CamFigure(rows=2, seed=0).draw(runs_of(root, "maps"))
    *axes, bar = figure.axes
    assert len(axes) == 4 * 4 and bar.get_ylabel() == "share of the image's largest value"
    assert [each.get_title() for each in axes[:4]] == ["", "original", "retrained", "fine-tuning"]
    kinds = [each.get_ylabel().splitlines() for each in axes[::4]]
    assert [kind for kind, _ in kinds] == ["forgotten", "forgotten", "retained", "retained"]
    labels = [int(text.removeprefix("class ")) for _, text in kinds]
    assert labels[:2] == [3, 3] and 3 not in labels[2:]
    test = digits.limited(20).test
    for (image, *_), label in zip(zip(*[iter(axes)] * 4, strict=True), labels, strict=True):
        pixels = torch.from_numpy(np.asarray(image.images[0].get_array()))
        (where,) = (test.images.squeeze(1) == pixels).all(2).all(1).nonzero()
        assert test.labels[where] == label


def test_the_maps_are_those_of_the_first_seed_s_models(root: Path) -> None:
    """The panel of each model holds the map of its weights, divided by the largest of its row."""
    figure = CamFigure(rows=1, seed=3).draw(runs_of(root, "maps"))
    stages = stages_of(plan_of(f"paths.root={root}", *CLASS, "seed=0"))
    original = stages.pretrain()
    reference = stages_of(plan_of(f"paths.root={root}", *CLASS, "seed=0", "method=retrain"))
    made = [original, reference.unlearn(original), stages.unlearn(original)]  # as in the table
    image = np.asarray(figure.axes[0].images[0].get_array())
    inputs = stages.dataset.test.pixels.normalise(torch.from_numpy(image)[None, None])
    maps = []
    for each in made:
        model = stages.plan.architecture.randomly_initialised(1, 8, 10, 0)
        model.load_state_dict(weights_in(each))
        maps.append(class_activation_maps(model, inputs, torch.tensor([3]))[0])
    largest = max(float(each.max()) for each in maps)
    assert largest > 0
    for axes, each in zip(figure.axes[1:4], maps, strict=True):
        shown = np.asarray(axes.images[0].get_array())
        assert shown == pytest.approx((each / largest).numpy(), abs=1e-6)


def test_single_rows_are_training_rows(root: Path) -> None:
    runs = runs_of(root, "rows")
    figure = CamFigure(rows=1, seed=0).draw(runs)
    stages = stages_of(plan_of(f"paths.root={root}", *DRAWN))
    forgotten = stages.dataset.train.only(stages.request.rows)
    image = torch.from_numpy(np.asarray(figure.axes[0].images[0].get_array()))
    assert (forgotten.images.squeeze(1) == image).all(2).all(1).any()


def test_the_seed_decides_the_images(root: Path) -> None:
    runs = runs_of(root, "maps")

    def image(seed: int) -> bytes:
        axes = CamFigure(rows=1, seed=seed).draw(runs).axes
        return np.asarray(axes[0].images[0].get_array()).tobytes()

    assert image(0) == image(0) and len({image(seed) for seed in range(4)}) > 1


def test_a_run_whose_options_mean_another_model_is_refused(root: Path) -> None:
    runs = runs_of(root, "rows")
    changed = [replace(result, overrides=[*DRAWN, "method.lr=0.5"]) for result in runs.report.results]
    with pytest.raises(UserError, match=r"method\.lr=0\.5` makes another model by now than .*: run it"):
        CamFigure(rows=1, seed=0).draw(replace(runs, report=replace(runs.report, results=changed)))


def test_pruned_weights_are_named_with_their_command(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "store" / "unlearn")
    with pytest.raises(
        UserError, match=r"the weights of the reference .* run `python -m runner .*` again"
    ):
        CamFigure(rows=1, seed=0).draw(runs_of(tmp_path, "rows"))
