"""Methods that move a part of the weights: SalUn, partial updates, CF-k and EU-k; and label flip."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data.streams import Streams
from methods.base import Access
from methods.label_flip import flipped
from methods.salun import saliency
from methods.weights.layers import last_layers
from methods.weights.masks import largest, only
from runner.plan import Plan
from tests.conftest import (
    FORGET,
    RETAIN,
    cost_of,
    only_batch,
    original_of,
    plan_of,
    problem_of,
    same,
    stages_of,
    state_of,
    unlearned_of,
)

Quick = Callable[..., Plan]


AUGMENTED = ["dataset.crop=1", "dataset.flip=true"]


# SalUn and masks


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_salun_leaves_what_is_not_salient_bit_identical(quick: Quick, optimizer: str) -> None:
    """This holds under weight decay and momentum, which move a weight whose gradient is zero."""
    stages = stages_of(
        quick(
            "method=salun", "method.batch_size=8", "method.epochs=3", "method.share=0.3",
            f"method.optimizer={optimizer}", "method.weight_decay=0.1", "method.clip=1",
        )
    )  # fmt: skip
    problem = problem_of(stages)
    masks = largest(saliency(problem, 8), 0.3)
    before, after = original_of(stages), unlearned_of(stages)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.3 * total)
    moved = sum(int((before[name] != after[name])[mask].sum()) for name, mask in masks.items())
    assert all(torch.equal(before[name][~mask], after[name][~mask]) for name, mask in masks.items())
    assert moved > 0.25 * total


def test_without_a_mask_weight_decay_moves_everything() -> None:
    """Without any gradient the weights shrink all the same: the mask prevents that."""
    layer = nn.Linear(3, 2)
    before = state_of(layer)

    def step() -> None:
        optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        (0 * layer(torch.ones(1, 3)).sum()).backward()
        optimizer.step()

    with only(layer, {name: torch.zeros_like(value).bool() for name, value in before.items()}):
        step()
    assert same(before, state_of(layer))
    step()
    assert not same(before, state_of(layer))


def test_the_mask_takes_the_largest_of_all_weights_together() -> None:
    scores = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[1.0, 2.0]])}
    masks = largest(scores, 0.5)
    assert masks["a"].tolist() == [True, False] and masks["b"].tolist() == [[False, True]]


@pytest.mark.parametrize("augmented", [[], AUGMENTED])
def test_saliency_is_the_gradient_of_the_summed_loss(augmented: list[str], quick: Quick) -> None:
    problem = problem_of(stages_of(quick("method=salun", "method.batch_size=8", *augmented)))
    scores = saliency(problem, 8)
    batch = only_batch(problem.forget)
    loss = F.cross_entropy(problem.model(batch.images), batch.labels, reduction="sum")
    wanted = torch.autograd.grad(loss, list(problem.model.parameters()))
    for score, gradient in zip(scores.values(), wanted, strict=True):
        assert torch.allclose(score, gradient.abs(), atol=1e-4)
    assert all(parameter.grad is None for parameter in problem.model.parameters())


# Label flip, and partial updates


def test_flipped_labels_are_any_but_the_own(quick: Quick) -> None:
    train = stages_of(quick()).dataset.train
    drawn = torch.stack([flipped(train, 10, Streams(seed, "test")("labels")) for seed in range(50)])
    assert not (drawn == train.labels).any()
    threes = drawn[:, train.labels == 3].flatten().bincount(minlength=10)
    assert threes[3] == 0 and threes.sum() == 1000
    assert (threes[threes > 0] - 1000 / 9).abs().max() < 45  # four standard deviations


@pytest.mark.parametrize("method", ["label_flip", "negative_gradient"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_partial_update_moves_its_share_of_each_layer_and_no_other_bit(
    quick: Quick, method: str, optimizer: str
) -> None:
    """One step moves a tenth of the first layer, rising to all of the last, whatever the optimizer."""
    unbounded = ["method.stop_loss=inf"] if method == "negative_gradient" else []
    stages = stages_of(
        quick(
            f"method={method}_partial", f"method.optimizer={optimizer}", "method.batch_size=20",
            *unbounded, "method.epochs=1", "method.weight_decay=0.1", "method.lr=0.01",
            "method.keep_first=0.1", "method.keep_last=1",
        )
    )  # fmt: skip
    before, after = original_of(stages), unlearned_of(stages)
    moved = [(before[f"{layer}.weight"] != after[f"{layer}.weight"]).double() for layer in (0, 2, 6, 8)]
    for number, (expected, layer) in enumerate(zip((0.1, 0.4, 0.7, 1.0), moved, strict=True)):
        spread = 4 * math.sqrt(expected * (1 - expected) / layer.numel())
        assert abs(layer.mean().item() - expected) <= spread + 1e-9, number


@pytest.mark.parametrize("method", ["label_flip", "negative_gradient"])
def test_a_partial_update_of_everything_is_the_whole_one(quick: Quick, method: str) -> None:
    options = ["method.batch_size=8", "method.epochs=2"]
    all_of_it = ["method.keep_first=1", "method.keep_last=0.9999999999"]  # no draw is above it
    plain = unlearned_of(stages_of(quick(f"method={method}", *options)))
    assert same(plain, unlearned_of(stages_of(quick(f"method={method}_partial", *options, *all_of_it))))


@pytest.mark.parametrize(
    ("include", "access", "rows"),
    [("false", Access.FORGET, FORGET), ("true", Access.FORGET | Access.RETAIN, FORGET + RETAIN)],
)
def test_label_flip_may_see_retained_rows_only_if_they_are_shown(
    quick: Quick, include: str, access: Access, rows: int
) -> None:
    options = ["method=label_flip", "method.batch_size=8", f"method.include_retain={include}"]
    stages = stages_of(quick(*options))
    assert stages.plan.method.sees() == access
    assert cost_of(stages)["gradient_examples"] == 5 * rows


# CF-k and EU-k


@pytest.mark.parametrize("model", ["small_cnn", "vit"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("method", ["catastrophic_k", "exact_k"])
def test_all_but_the_last_layers_keep_their_bits(
    tmp_path: Path, method: str, optimizer: str, model: str
) -> None:
    shape = {"small_cnn": ["model.widths=[4,8]"], "vit": ["model.dim=24", "model.depth=1"]}
    plan = plan_of(
        f"method={method}", "method.batch_size=8", "method.epochs=1", f"method.optimizer={optimizer}",
        f"model={model}", *shape[model], "data.limit=20", "training.epochs=1", "training.warmup=0",
        f"paths.root={tmp_path}", "threads=1",
    )  # fmt: skip
    stages = stages_of(plan)
    before, after = original_of(stages), unlearned_of(stages)
    names = [name for name, _ in problem_of(stages).model.named_parameters()]
    last = names[-4:]  # two layers of weight and bias
    assert [name for name in names if not torch.equal(before[name], after[name])] == last


def test_cf_k_of_all_layers_is_fine_tuning(quick: Quick) -> None:
    options = ["method.batch_size=8", "method.epochs=1"]
    every = stages_of(quick("method=catastrophic_k", *options, "method.layers=4"))
    assert same(unlearned_of(every), unlearned_of(stages_of(quick("method=finetune", *options))))


def test_eu_k_of_all_layers_is_retraining(quick: Quick) -> None:
    every = stages_of(quick("method=exact_k", "method.layers=4"))
    assert same(unlearned_of(every), unlearned_of(stages_of(quick("method=retrain"))))


def test_layers_are_those_that_own_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(2, 2))
    assert last_layers(model, 2) == [model[2], model[4]]
