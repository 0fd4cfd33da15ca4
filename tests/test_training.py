"""The training loop: its steps, its updates, its end, and the bounds of its hyperparameters."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from data.errors import UserError
from data.split import Dataset, Split
from data.streams import Streams
from methods.training.cost import Meter
from methods.training.descent import Recipe
from methods.training.divergence import Diverged
from methods.training.loop import Conditions, Phase, alternate, curves, fit, train
from models.precision import Precision
from tests.conftest import plan_of

CPU = torch.device("cpu")


def recipe_of(*overrides: str) -> Recipe:
    return plan_of("training.epochs=2", "training.batch_size=32", *overrides).recipe


def conditions_of(
    recipe: Recipe, budget: int | None = None
) -> tuple[Conditions, list[dict[str, float]]]:
    logged: list[dict[str, float]] = []
    meter = Meter(CPU, budget)
    return Conditions(Streams(0, "test"), meter, lambda v: logged.append(dict(v)), recipe), logged


def linear(split: Split, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(split.images[0].numel(), 10))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_it_is_the_plain_loop(digits: Dataset, optimizer: str) -> None:
    """The weights equal those of a plain torch loop, bit for bit."""
    recipe = recipe_of(f"training.optimizer={optimizer}", "training.lr=0.01")
    conditions, _ = conditions_of(recipe)
    ours = fit(linear(digits.train), digits.train, recipe, conditions)

    plain = linear(digits.train)
    made = {
        "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=5e-4),
        "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=5e-4),
        "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=5e-4),
    }[optimizer](plain.parameters())
    order = Streams(0, "test")("order")
    for _ in range(2):
        for batch in digits.train.batches(32, order):
            made.zero_grad()
            F.cross_entropy(plain(batch.images), batch.labels).backward()
            made.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_pauses_between_backward_and_update(digits: Dataset) -> None:
    recipe = recipe_of()
    conditions, _ = conditions_of(recipe)
    model = linear(digits.train)
    before = model[1].weight.detach().clone()  # type: ignore[index]
    steps = train(model, digits.train, recipe, conditions)
    first = next(steps)
    assert torch.equal(model[1].weight, before)  # type: ignore[index]
    expected = F.cross_entropy(model(first.batch.images), first.batch.labels)
    assert torch.allclose(first.loss, expected)
    assert model[1].weight.grad.norm() > 0  # type: ignore[index]
    next(steps)
    assert not torch.equal(model[1].weight, before)  # type: ignore[index]


def test_a_consumer_that_stops_stops_the_training(digits: Dataset) -> None:
    recipe = recipe_of()
    conditions, _ = conditions_of(recipe)
    model = linear(digits.train)
    before = model[1].weight.detach().clone()  # type: ignore[index]
    for _ in train(model, digits.train, recipe, conditions):
        break
    assert torch.equal(model[1].weight, before)  # type: ignore[index]


def test_curves_are_sample_weighted_means(digits: Dataset) -> None:
    recipe = recipe_of("training.batch_size=1000")  # 1000 rows and 438: batch means would differ
    conditions, logged = conditions_of(recipe)
    losses: dict[int, list[tuple[float, int]]] = {}
    steps = train(linear(digits.train), digits.train, recipe, conditions)
    for step in curves(steps, conditions.log):
        losses.setdefault(step.epoch, []).append((step.loss.item(), len(step.batch.rows)))
    assert [point["epoch"] for point in logged] == [1, 2]
    for epoch, point in enumerate(logged):
        total = sum(loss * n for loss, n in losses[epoch]) / 1438
        assert point["loss"] == pytest.approx(total, rel=1e-6)


def test_gradient_examples_are_counted_and_the_budget_ends_the_supply(digits: Dataset) -> None:
    recipe = recipe_of()
    conditions, _ = conditions_of(recipe)
    fit(linear(digits.train), digits.train, recipe, conditions)
    assert conditions.meter.cost.gradient_examples == 2 * 1438
    conditions, _ = conditions_of(recipe, budget=100)
    fit(linear(digits.train), digits.train, recipe, conditions)
    assert conditions.meter.cost.gradient_examples == 96  # three batches of 32


def test_what_a_budget_leaves_serves_no_smaller_batch(digits: Dataset) -> None:
    """Phases with batches of 32 and of 4 rows take turns until the budget ends the pass of the first."""
    conditions, _ = conditions_of(recipe_of(), budget=4 + 2 * 32 + 31)
    model, few = linear(digits.train), digits.train.take(torch.arange(4))
    ran: list[str] = []
    phases = []
    for name, split in (("few", few), ("many", digits.train.take(torch.arange(96)))):
        before: Callable[[int], None] = partial(lambda name, number: ran.append(name), name)
        phases.append(Phase(model, split, recipe_of(), conditions, name=name, before=before))
    alternate(phases, epochs=9)
    assert ran == ["few", "many", "many"]
    assert conditions.meter.cut and conditions.meter.cost.gradient_examples == 4 + 2 * 32


@pytest.mark.parametrize("step", [0, 40, 60])
def test_a_loss_that_is_no_number_stops_the_run_and_is_placed(digits: Dataset, step: int) -> None:
    recipe = recipe_of()
    conditions, _ = conditions_of(recipe)
    calls = -1

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(logits, labels) * (math.nan if calls == step else 1)

    epoch = step // 45 + 1  # 1438 rows in batches of 32
    with pytest.raises(Diverged, match=rf"nan in epoch {epoch}, at step {step + 1}: lower the learning"):
        for _ in train(linear(digits.train), digits.train, recipe, conditions, loss):
            pass


def test_clipping_bounds_the_norm_of_the_update(digits: Dataset) -> None:
    recipe = recipe_of(
        "training.clip=0.01", "training.momentum=0", "training.weight_decay=0", "training.lr=1"
    )
    conditions, _ = conditions_of(recipe)
    model = linear(digits.train)
    last = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    for _ in train(model, digits.train, recipe, conditions):
        now = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        assert (now - last).norm() <= 0.0101
        last = now


@given(
    epochs=st.integers(1, 30), steps=st.integers(1, 100), warmup=st.floats(0, 3), at=st.floats(0, 0.999)
)
def test_learning_rates_stay_between_zero_and_the_asked_rate(
    epochs: int, steps: int, warmup: float, at: float
) -> None:
    for schedule in SCHEDULED:
        recipe = SCHEDULED[schedule]
        descent = Recipe(**{**vars(recipe), "epochs": epochs, "warmup": warmup})
        assert 0 <= descent.rate(int(at * epochs * steps), steps) <= descent.lr * (1 + 1e-9)


SCHEDULED = {
    name: recipe_of(f"training.schedule={name}", "training.milestones=[2,4]", "training.lr=0.1")
    for name in ("constant", "step", "cosine", "linear")
}


def test_schedules_by_hand() -> None:
    step = recipe_of("training.schedule=step", "training.milestones=[1,2]", "training.lr=1")
    assert [step.rate(i, 2) for i in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = recipe_of("training.schedule=cosine", "training.lr=1")
    assert [cosine.rate(i, 2) for i in (0, 2)] == pytest.approx([1, 0.5])
    linear = recipe_of("training.schedule=linear", "training.epochs=4", "training.lr=1")
    assert [linear.rate(i, 1) for i in range(4)] == pytest.approx([1, 0.75, 0.5, 0.25])
    triangle = recipe_of(
        "training.schedule=linear", "training.epochs=4", "training.warmup=2", "training.lr=1"
    )
    assert [triangle.rate(i, 1) for i in range(4)] == pytest.approx([0.5, 1, 1, 0.5])
    warm = recipe_of("training.warmup=0.5", "training.lr=1")
    assert [warm.rate(i, 4) for i in range(4)] == pytest.approx([0.5, 1, 1, 1])


def test_bf16_computes_in_bf16_and_keeps_float32_weights(digits: Dataset) -> None:
    recipe = recipe_of("training.precision=bf16", "training.epochs=1")
    assert recipe.precision is Precision.bf16
    conditions, _ = conditions_of(recipe)
    model, plain = linear(digits.train), linear(digits.train)
    seen = []
    model[1].register_forward_hook(lambda *call: seen.append(call[2].dtype))  # type: ignore[index]
    fit(model, digits.train, recipe, conditions)
    fit(plain, digits.train, recipe_of("training.epochs=1"), conditions_of(recipe_of())[0])
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    weight, other = model[1].weight, plain[1].weight  # type: ignore[index]
    assert not torch.equal(weight, other) and torch.allclose(weight, other, atol=0.05)


HUGE = 99999999999999999999


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (f"training.batch_size={HUGE}", "at least 1 and at most 2,147,483,647"),
        ("training.batch_size=0", "at least 1 and at most 2,147,483,647"),
        (f"training.epochs={HUGE}", "at least 0 and at most 100,000"),
        ("training.epochs=-1", "at least 0 and at most 100,000"),
        ("training.lr=1e30", "at least 1e-12 and at most 1e+06"),
        ("training.lr=1e-300", "at least 1e-12 and at most 1e+06"),
        ("training.lr=-0.1", "at least 1e-12 and at most 1e+06"),
        ("training.lr=0", "at least 1e-12 and at most 1e+06"),
        ("training.momentum=1", "0, or at least 1e-12 and below 1"),
        ("training.momentum=1e30", "0, or at least 1e-12 and below 1"),
        ("training.momentum=1e-300", "0, or at least 1e-12 and below 1"),
        ("training.weight_decay=1e30", "0, or at least 1e-12 and at most 1e+06"),
        ("training.gamma=nan", "0, or at least 1e-12 and at most 1e+06"),
        ("training.milestones=[1,-1]", "at least 0 and at most 100,000"),
        ("training.clip=0", "at least 1e-12 and at most 1e+06"),
        ("training.compile=-1", "write true or false"),
        ("training.compile=2", "write true or false"),
    ],
)
def test_numbers_out_of_bounds_are_refused_by_the_name_of_their_option(
    override: str, words: str
) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(override)
    assert str(refused.value).startswith(override.partition("=")[0])
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.epochs=2", "training.warmup=2"],
        ["model=vit", "training.epochs=1"],
        ["method.epochs=1", "method.warmup=1.5"],
        ["method=unsir", "method.epochs=4", "method.warmup=1.5", "method.repair_epochs=1"],
    ],
)
def test_a_warm_up_that_takes_all_epochs_is_refused(overrides: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"takes all of (\w+)\.\w+=([12]) and .*: set \1\.warmup below \2$"
    ):
        plan_of(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.epochs=1", "training.warmup=0.99"],
        ["training.epochs=0", "evaluation.reference=null"],
        ["model=vit", "training.epochs=0", "method=original"],  # no step has a learning rate
    ],
)
def test_shorter_warm_ups_and_trainings_without_steps_are_served(overrides: list[str]) -> None:
    plan_of(*overrides)


def test_one_and_zero_are_booleans() -> None:
    assert recipe_of("training.compile=1").compile is True
    assert recipe_of("training.compile=0").compile is False
