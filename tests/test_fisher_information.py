"""Measures of importance: squared gradients by row and by batch, against row-by-row references."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from data.split import Dataset, Split
from methods.weights.importance import (
    Importance,
    batch_fisher,
    expected_fisher,
    per_sample_fisher,
    sensitivity,
    squares_of_layer,
)
from methods.weights.per_sample_gradients import Capture, Factors
from runner.plan import Plan
from tests.conftest import close, conditions_of, plan_of
from tests.test_per_sample_gradients import Twice

Quick = Callable[..., Plan]


def squares_by_vmap(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (image[None],)), label[None])

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    each = vmap(grad(loss), (None, 0, 0))(parameters, images, labels)
    return {name: value.square().sum(0) for name, value in each.items()}


def squares_row_by_row(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        model.zero_grad()
        F.cross_entropy(model(image), label).backward()
        for name, value in model.named_parameters():
            total[name] += value.grad.square()  # type: ignore[union-attr]
    return total


MODELS = [
    ("small_cnn", []),
    ("resnet18", ["model.stem=cifar"]),
    ("resnet18", []),
    ("vit", ["model.depth=2", "model.dim=24"]),
]


@pytest.mark.parametrize(("name", "overrides"), MODELS, ids=["cnn", "resnet", "imagenet-stem", "vit"])
def test_per_sample_fisher_is_the_sum_of_squared_gradients(
    digits: Dataset, name: str, overrides: list[str]
) -> None:
    plan = plan_of(f"model={name}", *overrides)
    model = plan.architecture.fresh(1, 32, 10, 0).eval()
    split = larger(digits.train.take(torch.arange(6)))
    found = per_sample_fisher(model, split, 4, conditions_of(plan))
    batch = next(split.batches(6))
    assert found.count == 6
    for reference in (squares_by_vmap, squares_row_by_row):
        wanted = reference(model, batch.images, batch.labels)
        far = [key for key in wanted if not close(found.sums[key], wanted[key], 1e-3)]
        assert not far
    assert all(parameter.requires_grad for parameter in model.parameters())


def larger(split: Split) -> Split:
    """Return the same rows with 32 pixels a side, which is enough for every model."""
    return replace(split, images=split.images.repeat_interleave(4, 2).repeat_interleave(4, 3))


@settings(max_examples=25, deadline=None)
@given(
    groups=st.sampled_from([1, 2]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    side=st.integers(3, 12),
    bias=st.booleans(),
)
def test_any_number_of_positions_gives_the_same_squares(
    groups: int, kernel: int, stride: int, side: int, bias: bool
) -> None:
    """One, few (over pairs) and many positions take three ways to one sum."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, kernel, stride, groups=groups, bias=bias).double()
    a = torch.randn(5, 4, side, side, dtype=torch.float64)
    b = torch.randn_like(conv(a))
    found = squares_of_layer(conv, [Factors(a, b)])
    wanted = {name: torch.zeros_like(value) for name, value in conv.named_parameters()}
    for image, upstream in zip(a.split(1), b.split(1), strict=True):
        parts = torch.autograd.grad((conv(image) * upstream).sum(), list(conv.parameters()))
        for name, part in zip(wanted, parts, strict=True):
            wanted[name] += part.square()
    assert found.keys() == wanted.keys()
    assert all(close(found[name].double(), wanted[name]) for name in wanted)


def test_a_layer_that_is_used_twice_has_its_gradients_added_before_they_are_squared() -> None:
    torch.manual_seed(0)
    model, x, labels = Twice(), torch.randn(4, 6), torch.tensor([0, 1, 2, 3])
    with Capture(model) as capture:
        F.cross_entropy(model(x), labels, reduction="sum").backward()
        found = squares_of_layer(model.layer, capture.take()["layer"])
    wanted = squares_by_vmap(model, x, labels)
    assert all(close(found[name], wanted[f"layer.{name}"], 1e-4) for name in found)


def test_a_model_without_rules_goes_row_by_row_and_says_so(
    digits: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 10)

        def forward(self, images: Tensor) -> Tensor:
            rows = images[:, 0]
            logits: Tensor = self.head(self.attention(rows, rows, rows)[0].mean(1))
            return logits

    torch.manual_seed(0)
    model, split = Mixing().eval(), digits.train.take(torch.arange(5))
    with caplog.at_level(logging.WARNING):
        found = per_sample_fisher(model, split, 3, conditions_of(plan_of()))
    assert "one by one" in caplog.text
    batch = next(split.batches(5))
    wanted = squares_row_by_row(model, batch.images, batch.labels)
    assert all(close(found.sums[name], wanted[name], 1e-4) for name in wanted)


def test_expected_fisher_weighs_every_class_by_its_probability(digits: Dataset) -> None:
    plan = plan_of("model.widths=[2,3]", "model.hidden=6")
    model = plan.architecture.fresh(1, 8, 10, 0).eval()
    split = digits.train.take(torch.arange(7))
    conditions = conditions_of(plan)
    found = expected_fisher(model, split, 4, conditions, 10)
    batch = next(split.batches(7))
    wanted = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for image in batch.images.split(1):
        p = model(image).detach().softmax(1)[0]
        for label in range(10):
            each = squares_row_by_row(model, image, torch.tensor([label]))
            for name in wanted:
                wanted[name] += p[label] * each[name]
    assert all(close(found.sums[name], wanted[name], 1e-4) for name in wanted)
    assert conditions.meter.cost.gradient_examples == 7 * 10


def test_measures_over_batches_are_what_ssds_code_has(digits: Dataset) -> None:
    plan = plan_of("model.widths=[2,3]", "model.hidden=6")
    model = plan.architecture.fresh(1, 8, 10, 0).eval()
    split = digits.train.take(torch.arange(10))
    fisher = batch_fisher(model, split, 4, conditions_of(plan))
    labelless = sensitivity(model, split, 4, conditions_of(plan))
    by_hand: list[dict[str, Tensor]] = [{}, {}]
    for batch in split.batches(4):
        logits = model(batch.images)
        losses = F.cross_entropy(logits, batch.labels), logits.norm(dim=1).pow(2).mean()
        for total, loss in zip(by_hand, losses, strict=True):
            parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            for (name, _), part in zip(model.named_parameters(), parts, strict=True):
                value = part.square() if total is by_hand[0] else part.abs()
                total[name] = total.get(name, torch.zeros(())) + value / 3
    assert all(close(fisher.mean(name), value) for name, value in by_hand[0].items())
    assert all(close(labelless.mean(name), value) for name, value in by_hand[1].items())


def test_labels_say_nothing_to_lfssd(digits: Dataset) -> None:
    plan = plan_of()
    model = plan.architecture.fresh(1, 8, 10, 0)
    split = digits.train.take(torch.arange(20))
    a, b = (
        sensitivity(model, part, 8, conditions_of(plan))
        for part in (split, split.relabelled(9 - split.labels))
    )
    assert all(torch.equal(a.sums[name], b.sums[name]) for name in a.sums)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_fisher_of_rows_depends_on_neither_order_nor_batches(digits: Dataset, seed: int) -> None:
    plan = plan_of("model.widths=[4,8]")
    model = plan.architecture.fresh(1, 8, 10, 0)
    split = digits.train.take(torch.arange(50))
    other = split.take(torch.randperm(50, generator=torch.Generator().manual_seed(seed)))
    a = per_sample_fisher(model, split, 50, conditions_of(plan))
    b = per_sample_fisher(model, other, 7, conditions_of(plan))
    assert all(close(a.sums[name], b.sums[name]) for name in a.sums)


def test_a_pass_counts_its_gradients_and_ends_at_the_budget(digits: Dataset) -> None:
    plan = plan_of()
    model, conditions = plan.architecture.fresh(1, 8, 10, 0), conditions_of(plan, budget=30)
    found = per_sample_fisher(model, digits.train, 8, conditions)
    assert found.count == conditions.meter.cost.gradient_examples == 24


def test_importance_is_a_mean() -> None:
    """A mean over nothing is zero, and the sums of parts add up to those of the whole."""
    nothing = Importance({"w": torch.zeros(2)}, 0)
    something = Importance({"w": torch.tensor([2.0, 4.0])}, 2)
    assert not nothing.mean("w").any()
    assert nothing.joined(something).mean("w").tolist() == [1, 2]
