"""Models trained together: the weights, costs, curves and keys of the same models trained alone."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data.errors import UserError
from data.split import Dataset, Pixels, Split
from data.streams import Streams
from methods.training.cost import Meter
from methods.training.descent import Recipe
from methods.training.divergence import Diverged
from methods.training.loop import Conditions, fit
from methods.training.together import Training, fit_together, stackable
from runner import stages
from runner.plan import Plan, identities
from runner.stages import cell, together
from runner.stages.cell import shadow_plan
from runner.stages.models import save
from runner.stages.together import pretrain_together, trains_together
from runner.stages.workspace import Workspace
from runner.store import Artefact, Store
from tests.conftest import close, plan_of, weights_in

CPU = torch.device("cpu")
MODELS = 3
Quick = Callable[..., Plan]


class Doubles(Pixels):
    """Prepare images in float64."""

    def normalise(self, images: Tensor) -> Tensor:
        return super().normalise(images).double()


def network(seed: int, *layers: nn.Module) -> nn.Module:
    """Return a small CNN of 8-pixel images, with further layers after its first convolution."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        *layers,
        nn.ReLU(),
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def trainings_of(split: Split, recipe: Recipe, dtype: torch.dtype, *layers: nn.Module) -> list[Training]:
    """Return trainings with weights, streams and rows of their own: each leaves other 20 rows out."""
    if dtype is torch.float64:
        split = replace(split, pixels=Doubles(**{**vars(split.pixels), "crop": 1, "flip": True}))
    return [
        Training(
            network(seed, *copy.deepcopy(layers)).to(dtype),
            split.without(split.rows[20 * seed : 20 * (seed + 1)]),
            Conditions(Streams(seed, "test"), Meter(CPU), list[Mapping[str, float]]().append, recipe),
        )
        for seed in range(MODELS)
    ]


def both(
    split: Split, recipe: Recipe, dtype: torch.dtype, *layers: nn.Module
) -> tuple[list[Training], list[Training]]:
    """Return the same trainings after they ran together, and after they ran one by one."""
    joined, alone = (trainings_of(split, recipe, dtype, *layers) for _ in range(2))
    whole = replace(joined[0].conditions, streams=Streams(9, "unused"), meter=Meter(CPU))
    fit_together(joined, recipe, whole)
    for each in alone:
        with each.conditions.meter:
            fit(each.model, each.split, recipe, each.conditions)
    return joined, alone


def distance(one: nn.Module, other: nn.Module) -> float:
    """Return the largest difference of a parameter or a buffer."""
    wanted = other.state_dict()
    return max(float((value - wanted[name]).abs().max()) for name, value in one.state_dict().items())


def recipe_of(*overrides: str) -> Recipe:
    return plan_of("training.epochs=3", "training.batch_size=32", *overrides).recipe


SCHEDULED = ["training.warmup=0.5", "training.schedule=cosine", "training.weight_decay=0.01"]


@pytest.mark.parametrize("clip", ["null", "0.05"])
@pytest.mark.parametrize(
    "optimizer",
    [["sgd", "training.momentum=0.9", "training.lr=0.05"], ["adam", "training.lr=0.01"], ["adamw"]],
    ids=lambda options: options[0],
)
def test_together_is_one_after_another_in_float64(
    digits: Dataset, optimizer: list[str], clip: str
) -> None:
    """Crops, flips, row orders, warm-up, decay and clipping are each model's own."""
    name, *options = optimizer
    recipe = recipe_of(f"training.optimizer={name}", *options, *SCHEDULED, f"training.clip={clip}")
    joined, alone = both(digits.train.take(torch.arange(300)), recipe, torch.float64)
    for one, other in zip(joined, alone, strict=True):
        assert distance(one.model, other.model) < 1e-12
        assert distance(one.model, network(other.conditions.streams.seed)) > 1e-3, "it is trained"
    assert distance(joined[0].model, joined[1].model) > 1e-2


def test_clipping_acts_in_the_test_above(digits: Dataset) -> None:
    split = digits.train.take(torch.arange(300))
    clipped, free = (
        both(split, recipe_of(f"training.clip={clip}"), torch.float64)[0][0] for clip in ("0.05", "null")
    )
    assert distance(clipped.model, free.model) > 1e-2


def test_few_steps_agree_in_float32(digits: Dataset) -> None:
    """Four steps: after more of them, ties in pooling and ReLU would part the models."""
    joined, alone = both(
        digits.train.take(torch.arange(80)), recipe_of("training.epochs=2"), torch.float32
    )
    for one, other in zip(joined, alone, strict=True):
        assert distance(one.model, other.model) < 1e-6


def test_costs_and_curves_are_those_of_each_model(digits: Dataset) -> None:
    recipe = recipe_of(*SCHEDULED)
    joined, alone = both(digits.train.take(torch.arange(300)), recipe, torch.float64)
    for one, other in zip(joined, alone, strict=True):
        cost = one.conditions.meter.cost
        assert cost.gradient_examples == other.conditions.meter.cost.gradient_examples == 3 * 280
        assert cost.forward_examples == 0 and cost.seconds > 0
        points, wanted = logged(one), logged(other)
        assert len(points) == 3
        for found, expected in zip(points, wanted, strict=True):
            assert list(found) == list(expected)
            assert found == pytest.approx(expected, rel=1e-12)
    assert len({each.conditions.meter.cost.seconds for each in joined}) == 1


def logged(training: Training) -> list[dict[str, float]]:
    points: list[dict[str, float]] = training.conditions.log.__self__  # type: ignore[attr-defined]
    return points


def test_buffers_are_each_models_own(digits: Dataset) -> None:
    """Running means of a norm, which no architecture here has."""
    joined, alone = both(
        digits.train.take(torch.arange(200)), recipe_of(), torch.float64, nn.BatchNorm2d(4)
    )
    for one, other in zip(joined, alone, strict=True):
        assert distance(one.model, other.model) < 1e-12


def test_a_loss_that_is_no_number_ends_all(digits: Dataset) -> None:
    trainings = trainings_of(digits.train.take(torch.arange(200)), recipe_of(), torch.float32)
    with torch.no_grad():
        next(trainings[1].model.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match=r"nan in epoch 1, at step 1: lower the learning rate"):
        fit_together(trainings, recipe_of(), trainings[0].conditions)


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.mean() > 0 else -images


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([], True),
        ([nn.GroupNorm(2, 4)], True),
        ([nn.Dropout(0.5)], False),
        ([nn.AlphaDropout(0.5)], False),
        ([nn.RReLU()], False),
        ([Branching()], False),
    ],
)
def test_models_with_draws_or_branches_train_alone(layers: list[nn.Module], wanted: bool) -> None:
    assert stackable(network(0, *layers), recipe_of(), torch.randn(2, 1, 8, 8)) is wanted


@pytest.mark.parametrize("override", ["training.precision=bf16", "training.compile=true"])
def test_what_vmap_does_not_run_trains_alone(override: str) -> None:
    assert not stackable(network(0), recipe_of(override), torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize("model", ["small_cnn", "resnet18", "vit"])
def test_the_architectures_train_together(model: str) -> None:
    plan = plan_of(f"model={model}", "dataset=digits", *(["model.patch=4"] if model == "vit" else []))
    assert stackable(plan.architecture.fresh(1, 8, 10, 0), recipe_of(), torch.randn(2, 1, 8, 8))


# The stage


SHADOWS = ["evaluation.shadows=6", "scenario=random", "scenario.count=7", "until=shadow"]


def made(plan: Plan) -> tuple[Workspace, list[Plan], list[Artefact]]:
    """Return a workspace, the plans of the shadows of its request, and their originals' places."""
    ws = Workspace(plan, Store(plan.root / "store"))
    rows = stages.cell_request(ws, stages.request(ws)[0])
    plans = [shadow_plan(plan, rows, number) for number in range(6)]
    return ws, plans, [ws.store.find(*identities.wanted_original(each)) for each in plans]


def test_only_a_gpu_trains_together() -> None:
    assert trains_together(torch.device("cuda", 0)) and not trains_together(CPU)


def test_originals_are_the_artefacts_of_separate_training(quick: Quick, tmp_path: Path) -> None:
    """The request of 7 rows has halves of 3 and of 4, and so there are trainings of two lengths."""
    ws, plans, joined = made(quick(*SHADOWS))
    assert {len(plan.share.left_out) for plan in plans if plan.share} == {3, 4}
    pretrain_together(ws, plans)
    other = quick(*SHADOWS, f"paths.root={tmp_path / 'alone'}")
    apart, _, alone = made(other)
    stages.shadows(apart, stages.cell_request(apart, stages.request(apart)[0]), range(6))
    for one, wanted in zip(joined, alone, strict=True):
        assert one.key == wanted.key and one.identity == wanted.identity and one.damage() is None
        assert {file.name for file in one.path.iterdir()} == {
            file.name for file in wanted.path.iterdir()
        }
        assert one.read("provenance.json")["together"] == 3
        assert "together" not in wanted.read("provenance.json")
        cost, alone_cost = one.read("cost.json"), wanted.read("cost.json")
        assert cost["gradient_examples"] == alone_cost["gradient_examples"]
        (point,), (wanted_point,) = one.read("curves.json"), wanted.read("curves.json")
        assert point == pytest.approx(wanted_point, rel=1e-4)
        for name, value in weights_in(one).items():
            assert close(value, weights_in(wanted)[name])


def test_shadows_find_the_originals(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell, "trains_together", lambda device: True)
    ws, _, joined = made(quick(*SHADOWS))
    found = stages.shadows(ws, stages.cell_request(ws, stages.request(ws)[0]), range(6))
    assert [each.original for each in found] == joined
    assert all("together" in each.original.read("provenance.json") for each in found)


def test_originals_that_exist_are_kept(quick: Quick) -> None:
    ws, plans, joined = made(quick(*SHADOWS))
    pretrain_together(ws, plans[:4])
    stamps = [each.read("provenance.json")["together"] for each in joined[:4]]
    assert stamps == [2] * 4
    weights = [each.checksum("model.safetensors") for each in joined[:4]]
    pretrain_together(ws, plans)
    assert [each.checksum("model.safetensors") for each in joined[:4]] == weights
    assert not joined[4].path.exists(), "a single one of its length is left to `pretrain`"


def test_a_kept_original_survives_the_failure_of_a_later_one(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, plans, joined = made(quick(*SHADOWS))
    saved: list[Path] = []

    def fails_at_the_second(model: nn.Module, folder: Path) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(folder)
        save(model, folder)

    monkeypatch.setattr(together, "save", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        pretrain_together(ws, plans)
    assert [ws.store.has(*identities.wanted_original(plan)) for plan in plans].count(True) == 1
    assert not [*joined[0].path.parent.glob(".*-*/")], "no scratch is left"


def test_a_group_too_large_for_the_memory_is_halved(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_most_two(trainings: list[Training], *rest: object) -> None:
        if len(trainings) > 2:
            raise torch.OutOfMemoryError
        fit_together(trainings, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(together, "fit_together", at_most_two)
    ws, plans, joined = made(quick(*SHADOWS))
    pretrain_together(ws, plans)
    there = [each for each in joined if each.path.exists()]
    assert [each.read("provenance.json")["together"] for each in there] == [2] * 4


@pytest.mark.parametrize(
    "overrides", [["training.precision=bf16"], ["method=amnesiac", "recorder=[batch_updates]"]]
)
def test_bfloat16_and_recorded_trainings_are_left_alone(quick: Quick, overrides: list[str]) -> None:
    ws, plans, joined = made(quick(*SHADOWS, *overrides, "evaluation.shadows_with_records=true"))
    pretrain_together(ws, plans)
    assert not any(each.path.exists() for each in joined)


def test_a_record_of_a_model_that_trained_together_is_refused(quick: Quick) -> None:
    ws, plans, _ = made(quick(*SHADOWS))
    pretrain_together(ws, plans)
    options = ["method=amnesiac", "recorder=[batch_updates]", "evaluation.shadows_with_records=true"]
    recorded, _, _ = made(quick(*SHADOWS, *options))
    request = stages.cell_request(recorded, stages.request(recorded)[0])
    with pytest.raises(UserError, match=r"together with others, 3 in all, .* set another paths.root"):
        stages.shadows(recorded, request, range(6))
