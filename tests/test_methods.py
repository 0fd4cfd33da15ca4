"""What every method must do, for every file in conf/method, and what each of the first five claims."""

import os
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from data.errors import UserError
from data.split import Dataset, Split
from data.streams import Streams
from methods.base import Access, Method
from methods.random_labels import wrong_labels
from methods.training.cost import Meter
from methods.training.descent import Descent
from methods.training.loop import Conditions
from runner.pipeline import run
from runner.plan import Plan
from runner.stages.models import MODEL
from tests.bench.methods import WORKS
from tests.conftest import (
    Stages,
    catalogue,
    needs,
    needs_record,
    needs_scenario,
    options,
    plan_of,
    stages_of,
)

Quick = Callable[..., Plan]
METHODS = options("method")


@pytest.fixture
def quick(quick: Quick) -> Quick:
    """Quick plans whose method works in batches of 8, so that small parts fill one, for at most three
    epochs, on a request that it serves."""

    def plan(*overrides: str) -> Plan:
        named = [text.removeprefix("method=") for text in overrides if text.startswith("method=")]
        record = [text for name in named for text in needs_record(name) + needs_scenario(name)]
        method = quick(*record, *overrides).method
        smaller = [f"method.{name}=8" for name in batch_sizes(method)]
        if getattr(method, "epochs", 0) > 3:
            smaller.append("method.epochs=3")
        return quick(*smaller, *record, *overrides)

    return plan


def batch_sizes(method: Method) -> list[str]:
    """The fields that say how many rows a batch has."""
    return [field.name for field in fields(method) if field.name.endswith("batch_size")]  # type: ignore[arg-type]


def weights_of(stages: Stages) -> dict[str, torch.Tensor]:
    made = stages.unlearn(stages.pretrain())
    return load_file(made.path / MODEL)


def conditions_of(stages: Stages) -> Conditions:
    meter = Meter(torch.device("cpu"))
    return Conditions(Streams(0, "test"), meter, lambda values: None, stages.plan.recipe)


def test_the_bench_has_a_plain_loop_for_every_method_that_descends(quick: Quick) -> None:
    descending = {m for m in METHODS if isinstance(quick(f"method={m}").method, Descent)}
    assert descending <= set(WORKS)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_sees_what_it_declares_and_nothing_else(quick: Quick, method: str) -> None:
    stages = stages_of(quick(f"method={method}"))
    access = stages.plan.method.sees()
    problem = stages.problem(stages.plan.method, stages.pretrain(), conditions_of(stages))
    rows = stages.request.rows
    assert (problem.forget is not None) == (Access.FORGET in access)
    assert (problem.retain is not None) == (Access.RETAIN in access)
    if problem.forget is not None:
        assert torch.equal(problem.forget.rows, rows)
    if problem.retain is not None:
        relabelled = stages.request.target is not None
        assert torch.isin(rows, problem.retain.rows).all() == relabelled
        assert torch.isin(problem.retain.rows, rows).any() == relabelled
        both = len(problem.retain) + (0 if relabelled else len(rows))
        assert both == len(stages.dataset.train)


@pytest.mark.parametrize("method", METHODS)
def test_the_original_stays_as_it_was_and_the_result_is_finite(quick: Quick, method: str) -> None:
    stages = stages_of(quick(f"method={method}"))
    original = stages.pretrain()
    weights = weights_of(stages)
    assert original.damage() is None
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits(quick: Quick, method: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    first = weights_of(stages_of(quick(f"method={method}")))
    again = weights_of(stages_of(quick(f"method={method}", f"paths.root={tmp_path / 'again'}")))
    other = weights_of(stages_of(quick(f"method={method}", "seed=1")))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("method", METHODS)
def test_the_budget_is_kept(quick: Quick, method: str) -> None:
    stages = stages_of(quick(f"method={method}", "budget.gradient_examples=50"))
    made = stages.unlearn(stages.pretrain())
    assert made.read("cost.json")["gradient_examples"] <= 50


def test_a_row_says_that_the_budget_cut_its_method_short(quick: Quick) -> None:
    for budget, cut in ((50, True), (540, False)):
        row = run(quick("method=finetune", f"budget.gradient_examples={budget}"))
        assert row is not None and ("cut_by_budget" in row.costs["unlearned"]) == cut


def test_fisher_forgetting_that_could_measure_nothing_moves_nothing(quick: Quick) -> None:
    stages = stages_of(quick("method=fisher_forgetting", "budget.gradient_examples=50"))
    original = stages.pretrain()
    assert stages.unlearn(original).checksum(MODEL) == original.checksum(MODEL)


@pytest.mark.parametrize("method", ["bad_teacher", "exact_k"])
def test_a_random_model_is_random_beside_a_file_of_weights(quick: Quick, method: str) -> None:
    """Where the original began with a file, what is drawn anew is not the file again."""
    first = stages_of(quick("training.epochs=3", "training.lr=0.05"))
    file = first.pretrain().path / MODEL
    given = [f"model.weights={file}", f"model.sha256={sha256(file.read_bytes()).hexdigest()}"]
    stages = stages_of(quick(*given, f"method={method}"))
    problem = stages.problem(stages.plan.method, stages.pretrain(), conditions_of(stages))
    streams = stages.streams("unlearn")
    begun, drawn = (
        problem.fresh(streams).state_dict(),
        problem.randomly_initialised(streams).state_dict(),
    )
    weights = load_file(file)
    assert all(torch.equal(begun[name], weights[name]) for name in weights)
    assert not any(torch.equal(drawn[name], weights[name]) for name in weights)
    problem.fresh = lambda streams: pytest.fail("the file is no random model")
    stages.plan.method.unlearn(problem)


SEES = {
    Access.NOTHING: ("nothing", "a record"),
    Access.FORGET: ("forgotten rows",),
    Access.RETAIN: ("retained rows",),
    Access.FORGET | Access.RETAIN: ("both",),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_catalogue_says_what_a_method_sees(quick: Quick, method: str) -> None:
    found = quick(f"method={method}").method
    said = catalogue()[method]["sees"]
    assert said.startswith(SEES[found.sees()])
    assert ("a record" in said) == (found.records is not None)


@pytest.mark.parametrize("method", METHODS)
def test_the_catalogue_says_what_a_method_costs(quick: Quick, method: str) -> None:
    """Two epochs of training: as many as SISA's slices divide."""
    stages = stages_of(quick(f"method={method}", "training.epochs=2"))
    made, own = stages.unlearn(stages.pretrain()), stages.plan.method
    spent = made.read("cost.json")["gradient_examples"]
    forget, rows = len(stages.request.rows), len(stages.dataset.train)
    letters = {"F": forget, "R": rows - forget, "E0": 2, "C": 1, "K": stages.dataset.classes}
    for letter, name in (("E", "epochs"), ("Et", "teacher_epochs"), ("S", "samples"), ("G", "rounds")):
        letters[letter] = getattr(own, name, None)
    said = catalogue()[method]["cost"].translate(str.maketrans("₀ₜ·−", "0t*-"))
    most = eval(said.removeprefix("≤"), {}, letters)
    assert spent == pytest.approx(most, abs=1) or (said.startswith("≤") and spent <= most)


@pytest.mark.parametrize("method", METHODS)
def test_the_catalogue_says_what_is_exact(quick: Quick, method: str, tmp_path: Path) -> None:
    """Whether anything is left of what the forgotten rows held, the original's training included."""
    made = []
    for place in ("clean", "poisoned"):
        stages = stages_of(quick(f"method={method}", f"paths.root={tmp_path / place}"))
        if place == "poisoned":
            train = stages.dataset.train
            where = torch.isin(train.rows, stages.request.rows)
            train.images[where] = 255 - train.images[where]
        made.append(stages.unlearn(stages.pretrain()).checksum(MODEL))
    assert catalogue()[method]["exact"] == ("yes" if made[0] == made[1] else "no")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scenario", ["whole_class", "random", "given_rows", "relabel"])
def test_every_scenario_is_served_or_refused_as_the_catalogue_says(
    quick: Quick, method: str, scenario: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(map(str, range(10, 30))))
    rest = [f"scenario.file={tmp_path / 'rows.txt'}"] if scenario == "given_rows" else []
    stages = stages_of(quick(f"method={method}", f"scenario={scenario}", *rest))
    serve_or_refuse(stages, method, scenario)


def serve_or_refuse(stages: Stages, method: str, scenario: str) -> None:
    """Serves what the catalogue lists, and refuses the rest before any training."""
    requests = catalogue()[method]["requests"]
    if requests == "any" or scenario in requests:
        weights_of(stages)
        return
    with pytest.raises(UserError, match="scenario="):
        _ = stages.request
    assert not (stages.plan.root / "store" / "pretrain").exists()


@needs("cifar-100-python/train")
@pytest.mark.parametrize("method", METHODS)
def test_part_of_a_class_is_served_or_refused(quick: Quick, method: str) -> None:
    stages = stages_of(
        quick(
            f"method={method}", "dataset=cifar20", "scenario=part_of_class", "data.limit=8",
            "model.widths=[2,2]",
        )
    )  # fmt: skip
    serve_or_refuse(stages, method, "part_of_class")


# Every model of conf/model, as small as it gets; the other stem would leave one pixel of an 8×8 image.
SMALLER = {
    "small_cnn": ["model.widths=[4,8]"],
    "resnet18": ["model.stem=cifar"],
    "resnet50": ["model.stem=cifar"],
    "vit": ["model.dim=24", "model.depth=1"],
    "vit_b_16": ["model.dim=24", "model.depth=1", "model.heads=3", "model.input_size=32"],
    "vit_l_16": ["model.dim=32", "model.depth=2", "model.heads=2", "model.input_size=32"],
}


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of originals for the tests of all processes of this run: the large ones take seconds."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "originals"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("model", "precision"),
    [(model, "fp32") for model in options("model")]
    # those of millions of weights take seconds each
    + [(model, "bf16") for model in options("model") if model not in ("alexnet", "resnet50")],
)
def test_every_model_and_precision_is_served(
    tmp_path: Path, originals: Path, method: str, model: str, precision: str
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "pretrain").symlink_to(originals)
    plan = plan_of(
        f"method={method}", f"model={model}", *SMALLER.get(model, []), f"training.precision={precision}",
        "data.limit=7", "training.epochs=1", "training.batch_size=35", f"paths.root={tmp_path}",
        "training.warmup=0", "threads=1", *needs_record(method), *needs_scenario(method),
    )  # fmt: skip
    plan = replace(plan, method=_with_small_batches(plan))
    assert all(value.isfinite().all() for value in weights_of(stages_of(plan)).values())


def _with_small_batches(plan: Plan):  # type: ignore[no-untyped-def]
    smaller = dict.fromkeys(batch_sizes(plan.method), 7)
    epochs = {"epochs": 1} if hasattr(plan.method, "epochs") else {}
    return replace(plan.method, **smaller, **epochs)  # type: ignore[type-var]


def test_a_batch_larger_than_a_part_is_refused_before_pretraining(quick: Quick) -> None:
    for overrides, words in (
        (["method=finetune", "method.batch_size=181"], "the retained part, which has 180 rows"),
        (["method=negative_gradient", "method.batch_size=21"], "the part to forget, which has 20"),
        (["method=random_labels", "method.batch_size=201"], "the training set, which has 200 rows"),
        (["training.batch_size=201"], "the training set, which has 200 rows"),
        (["training.batch_size=190", "method=original"], "the retained part, which has 180 rows"),
        (
            ["training.batch_size=190", "method=retrain", "evaluation=quick"],
            "the retained part, which has 180 rows",
        ),
    ):
        stages = stages_of(quick(*overrides))
        with pytest.raises(UserError) as refused:
            _ = stages.request
        assert words in str(refused.value)
        assert not (stages.plan.root / "store" / "pretrain").exists()


# Each method's own claim


def test_original_changes_nothing(quick: Quick) -> None:
    stages = stages_of(quick("method=original"))
    original = stages.pretrain()
    assert original.checksum(MODEL) == stages.unlearn(original).checksum(MODEL)


@pytest.mark.parametrize("model", ["small_cnn", "resnet18", "vit"])
def test_retrain_differs_from_the_original_in_every_tensor(tmp_path, model: str) -> None:  # type: ignore[no-untyped-def]
    """SSD's published 'retrain' changes the classifier's head alone."""
    plan = plan_of(
        f"model={model}", "method=retrain", "data.limit=5", "training.epochs=1",
        "training.batch_size=25",
        "training.warmup=0", f"paths.root={tmp_path}", "threads=1",
    )  # fmt: skip
    stages = stages_of(plan)
    original, retrained = load_file(stages.pretrain().path / MODEL), weights_of(stages)
    assert not [name for name in original if torch.equal(original[name], retrained[name])]


@pytest.mark.parametrize(
    "method", ["retrain", "finetune", "l1_sparse", "unsir", "catastrophic_k", "exact_k"]
)
def test_poisoned_forget_rows_change_nothing(quick: Quick, method: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Whatever the forgotten rows hold, a method that may not see them gives the same bits."""
    clean = stages_of(quick(f"method={method}"))
    poisoned = stages_of(quick(f"method={method}", f"paths.root={tmp_path / 'poisoned'}"))
    original = clean.pretrain()
    rows = poisoned.request.rows
    train = poisoned.dataset.train
    where = torch.isin(train.rows, rows)
    train.images[where] = 255 - train.images[where]
    train.labels[where] = 0
    a, b = (stages.unlearn(original) for stages in (clean, poisoned))
    assert a.checksum(MODEL) == b.checksum(MODEL)


def test_finetune_without_anything_to_forget_is_training(quick: Quick) -> None:
    """By the original's recipe, from the weights that it began with, it ends in the original's bits."""
    stages = stages_of(quick())
    original, streams = stages.pretrain(), stages.streams("pretrain")
    recipe = {field.name: getattr(stages.plan.recipe, field.name) for field in fields(Descent)}
    method = replace(stages.plan.method, **recipe)
    problem = stages.problem(method, original, replace(conditions_of(stages), streams=streams))
    problem.model, problem.retain = problem.fresh(streams), stages.dataset.train
    finetuned = method.unlearn(problem).state_dict()
    for name, trained in load_file(original.path / MODEL).items():
        assert torch.equal(finetuned[name], trained)


def forget_loss(stages: Stages, weights: dict[str, torch.Tensor]) -> float:
    problem = stages.problem(stages.plan.method, stages.pretrain(), conditions_of(stages))
    problem.model.load_state_dict(weights)
    forget = stages.dataset.train.only(stages.request.rows)
    with torch.no_grad():
        batch = next(iter(forget.batches(len(forget))))
        return F.cross_entropy(problem.model(batch.images), batch.labels).item()


def test_the_meter_counts_looks_apart_from_gradients(digits: Dataset) -> None:
    meter = Meter(torch.device("cpu"), budget=100)
    assert sum(len(batch.rows) for batch in meter.forward_batches(digits.test, 50)) == 359
    assert (meter.cost.forward_examples, meter.cost.gradient_examples) == (359, 0)


def test_random_labels_show_every_row_once_when_relabelling(quick: Quick) -> None:
    stages = stages_of(quick("method=random_labels", "scenario=relabel"))
    cost = stages.unlearn(stages.pretrain()).read("cost.json")
    assert cost["gradient_examples"] == 200 * 3


def test_negative_gradient_raises_the_forget_loss_and_stops_at_its_bound(quick: Quick) -> None:
    trained = ["training.epochs=30", "training.lr=0.05", "method=negative_gradient"]
    stages = stages_of(quick(*trained, "method.batch_size=20", "method.lr=0.1", "method.epochs=100"))
    original = load_file(stages.pretrain().path / MODEL)
    before, after = forget_loss(stages, original), forget_loss(stages, weights_of(stages))
    assert before < 1 and after >= 2.302
    made = stages.unlearn(stages.pretrain())
    stops = [point for point in made.read("curves.json") if "stopped_at_step" in point]
    assert len(stops) == 1 and stops[0]["stopped_at_step"] < 100
    assert after == pytest.approx(stops[0]["forget_loss"], rel=1e-4)


def test_wrong_labels_are_never_the_own_label_nor_a_forgotten_class(quick: Quick) -> None:
    stages = stages_of(quick("method=random_labels"))
    train = stages.dataset.train
    rng = Streams(0, "test")("labels")

    def draw(forget: Split, retain: Split) -> torch.Tensor:
        return wrong_labels(forget, retain, 10, rng)

    forget = train.take(torch.isin(train.labels, torch.tensor([3, 7])))
    drawn = torch.cat([draw(forget, train.without(forget.rows)) for _ in range(20)])
    assert set(drawn.tolist()) == {0, 1, 2, 4, 5, 6, 8, 9}
    few = train.take(torch.arange(0, len(train), 3))
    drawn = torch.stack([draw(few, train.without(few.rows)) for _ in range(20)])
    assert not (drawn == few.labels).any() and set(drawn.flatten().tolist()) == set(range(10))
    ones = train.take(train.labels == 1)
    with pytest.raises(UserError, match="retain rows of another class"):
        draw(ones, ones)
