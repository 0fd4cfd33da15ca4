"""The plainest methods: original, retrain, fine-tuning, random labels and negative gradient."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from data.errors import UserError
from data.split import Dataset, Split
from data.streams import Streams
from methods.random_labels import wrong_labels
from methods.training.cost import Meter
from methods.training.descent import Descent
from runner.plan import Plan
from tests.conftest import (
    LEARNED,
    Stages,
    Weights,
    conditions_of,
    original_of,
    plan_of,
    problem_of,
    same,
    stages_of,
    unlearned_of,
)

Quick = Callable[..., Plan]


def test_original_changes_nothing(quick: Quick) -> None:
    stages = stages_of(quick("method=original"))
    assert same(original_of(stages), unlearned_of(stages))


@pytest.mark.parametrize("model", ["small_cnn", "resnet18", "vit"])
def test_retrain_differs_from_the_original_in_every_tensor(tmp_path: Path, model: str) -> None:
    """SSD's published 'retrain' changes the classifier's head alone."""
    plan = plan_of(
        f"model={model}", "method=retrain", "data.limit=5", "training.epochs=1",
        "training.batch_size=25", "training.warmup=0", f"paths.root={tmp_path}", "threads=1",
    )  # fmt: skip
    stages = stages_of(plan)
    original, retrained = original_of(stages), unlearned_of(stages)
    assert not [name for name in original if torch.equal(original[name], retrained[name])]


def test_finetune_without_anything_to_forget_is_training(quick: Quick) -> None:
    """By the original's recipe and from its first weights, it ends in the original's bits."""
    stages = stages_of(quick())
    original, streams = stages.pretrain(), stages.streams("pretrain")
    recipe = {field.name: getattr(stages.plan.recipe, field.name) for field in fields(Descent)}
    method = replace(stages.plan.method, **recipe)
    problem = stages.problem(method, original, replace(conditions_of(stages.plan), streams=streams))
    problem.model, problem.declared_retain = problem.fresh(streams), stages.dataset.train
    assert same(method.unlearn(problem).state_dict(), original_of(stages))


def forget_loss(stages: Stages, weights: Weights) -> float:
    problem = problem_of(stages)
    problem.model.load_state_dict(weights)
    forget = stages.dataset.train.only(stages.request.rows)
    with torch.no_grad():
        batch = next(iter(forget.batches(len(forget))))
        return F.cross_entropy(problem.model(batch.images), batch.labels).item()


def test_the_meter_counts_forward_batches_apart_from_gradients(digits: Dataset) -> None:
    meter = Meter(torch.device("cpu"), budget=100)
    assert sum(len(batch.rows) for batch in meter.forward_batches(digits.test, 50)) == 359
    assert (meter.cost.forward_examples, meter.cost.gradient_examples) == (359, 0)


def test_a_budget_that_ends_the_retained_rows_ends_the_ascent(quick: Quick) -> None:
    """After a first epoch of 20 and 180 rows, 40 are left: the next pass over the forgotten ones, and no
    batch of 64."""
    options = ["method=dual_phase_ascent", "method.batch_size=64", "budget.gradient_examples=240"]
    stages = stages_of(quick(*options))
    assert stages.unlearn(stages.pretrain()).read("cost.json")["gradient_examples"] == 20 + 180 + 20


def test_random_labels_show_every_row_once_when_relabelling(quick: Quick) -> None:
    stages = stages_of(quick("method=random_labels", "scenario=relabel"))
    cost = stages.unlearn(stages.pretrain()).read("cost.json")
    assert cost["gradient_examples"] == 200 * 3


def test_negative_gradient_raises_the_forget_loss_and_stops_at_its_bound(quick: Quick) -> None:
    trained = [*LEARNED, "method=negative_gradient"]
    stages = stages_of(quick(*trained, "method.batch_size=20", "method.lr=0.1", "method.epochs=100"))
    original = original_of(stages)
    before, after = forget_loss(stages, original), forget_loss(stages, unlearned_of(stages))
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
    with pytest.raises(UserError, match="retains rows of another class"):
        draw(ones, ones)
