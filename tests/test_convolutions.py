"""Methods on convolutions: MSG draws weights of small gradient anew, CT transposes kernels."""

from collections.abc import Callable
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import UserError
from data.streams import Streams
from methods.base import Facts, Problem
from methods.ct import transpose_kernels
from methods.msg import redraw
from methods.training.cost import pass_streams
from methods.training.loop import fit
from runner.plan import Plan
from tests.conftest import (
    FORGET,
    RETAIN,
    cost_of,
    only_batch,
    original_of,
    problem_of,
    same,
    stages_of,
    state_of,
    unlearned_of,
)

Quick = Callable[..., Plan]

KERNELS = ("0.weight", "2.weight")  # of small_cnn
SMALL = ["method.batch_size=20"]


# MSG


def gradient(model: nn.Module, problem: Problem, name: str) -> Tensor:
    """Return Σ_S ∂CE − Σ_{D_f} ∂CE of a parameter, for the rows S that MSG samples."""
    order = torch.randperm(RETAIN, generator=problem.conditions.streams("sample"))
    sample, forget = only_batch(problem.retain.take(order[:FORGET])), only_batch(problem.forget)
    losses = [F.cross_entropy(model(b.images), b.labels, reduction="sum") for b in (sample, forget)]
    (found,) = torch.autograd.grad(losses[0] - losses[1], dict(model.named_parameters())[name])
    return found


def test_msg_draws_the_share_of_each_kernel_with_the_smallest_gradient_anew(quick: Quick) -> None:
    stages = stages_of(quick("method=msg", *SMALL, "method.epochs=0", "method.share=0.3"))
    problem, again = problem_of(stages), problem_of(stages)
    before, after = original_of(stages), state_of(stages.plan.method.unlearn(problem))
    for name, value in before.items():
        moved = after[name] != value
        assert int(moved.sum()) == (round(0.3 * value.numel()) if name in KERNELS else 0)
        if name in KERNELS:
            size = gradient(again.model.eval(), again, name).abs()
            assert size[moved].max() <= size[~moved].min() * (1 + 1e-4)
    assert problem.conditions.meter.cost.gradient_examples == 2 * FORGET


def test_what_is_drawn_anew_has_the_variance_of_kaimings_fan_out() -> None:
    layer = nn.Conv2d(16, 64, 3)
    model = nn.Sequential(layer)
    bias = layer.bias.detach().clone()  # type: ignore[union-attr]
    redraw(model, {"0": torch.ones_like(layer.weight).bool()}, Streams(0, "test")("weights"))
    # fan_out = 64 outputs · 9 pixels; the standard error of the deviation of 9,216 draws is 0.7 %
    assert layer.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert layer.weight.mean().abs() < 0.003
    assert torch.equal(layer.bias, bias)  # type: ignore[arg-type]


def test_msg_of_no_share_is_fine_tuning_at_two_rates(quick: Quick) -> None:
    """Without weight decay a gradient times 0.1 is a rate times 0.1, with momentum too."""
    chosen = ["method.share=0", "method.weight_decay=0", "method.epochs=2", "method.warmup=0"]
    stages = stages_of(quick("method=msg", *SMALL, *chosen, "method.schedule=constant", "method.lr=0.1"))
    a, b = problem_of(stages), problem_of(stages)
    ours = stages.plan.method.unlearn(a)
    weights = dict(b.model.named_parameters())
    kernels = [weights[name] for name in KERNELS]
    others = [weight for name, weight in weights.items() if name not in KERNELS]
    groups = [{"params": kernels, "lr": 0.01}, {"params": others, "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    order, augment = pass_streams(b.conditions.streams)
    for batch in chain(*(b.retain.batches(20, order, augment) for _ in range(2))):
        optimizer.zero_grad()
        F.cross_entropy(b.model(batch.images), batch.labels).backward()
        optimizer.step()
    for name, value in state_of(b.model).items():
        assert torch.allclose(state_of(ours)[name], value, atol=1e-6), name


def test_msg_of_no_share_and_one_rate_is_fine_tuning(quick: Quick) -> None:
    descent = [*SMALL, "method.epochs=2", "method.lr=0.01", "method.warmup=0"]
    descent.append("method.schedule=constant")
    msg = stages_of(quick("method=msg", *descent, "method.share=0", "method.factor=1"))
    tuned = stages_of(quick("method=finetune", *descent))
    assert same(unlearned_of(msg), unlearned_of(tuned))


def test_fewer_retained_rows_than_forgotten_ones_are_all_sampled(quick: Quick) -> None:
    classes = "scenario.classes=[0,1,2,3,4,5]"
    stages = stages_of(quick("method=msg", *SMALL, "method.epochs=0", classes))
    assert cost_of(stages)["gradient_examples"] == 120 + 80


# CT


def test_a_kernel_is_transposed_and_nothing_else() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 3))
    before = state_of(model)
    transpose_kernels(model)
    after = state_of(model)
    assert torch.equal(after["0.weight"][..., 0, 1], before["0.weight"][..., 1, 0])
    assert torch.equal(after["0.weight"], before["0.weight"].mT) and not same(before, after)
    assert all(torch.equal(after[name], before[name]) for name in ("0.bias", "2.weight", "2.bias"))
    transpose_kernels(model)
    assert same(before, state_of(model))


def test_ct_of_symmetric_kernels_is_fine_tuning(quick: Quick) -> None:
    stages = stages_of(quick("method=ct", *SMALL, "method.epochs=2"))
    a, b = problem_of(stages), problem_of(stages)
    for name, value in (*a.model.named_parameters(), *b.model.named_parameters()):
        if name in KERNELS:
            value.data = (value.data + value.data.mT) / 2
    before = state_of(a.model)
    transpose_kernels(a.model)
    assert same(before, state_of(a.model))
    tuned = fit(b.model, b.retain, stages.plan.method, b.conditions)  # type: ignore[arg-type]
    assert same(state_of(stages.plan.method.unlearn(a)), state_of(tuned))


def test_ct_without_training_is_the_transposition(quick: Quick) -> None:
    stages = stages_of(quick("method=ct", *SMALL, "method.epochs=0"))
    before, after = original_of(stages), unlearned_of(stages)
    assert all(
        torch.equal(after[name], value.mT if name in KERNELS else value)
        for name, value in before.items()
    )


# Refusals


def facts_of(plan: Plan, model: nn.Module) -> Facts:
    rows = {"all": 200, "forget": FORGET, "retain": RETAIN, "gone": [3], "classes": 10}
    return Facts(**rows, relabels=False, recipe=plan.recipe, outline=lambda: model)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["msg", "ct"])
def test_a_model_without_a_convolution_is_refused(quick: Quick, method: str) -> None:
    plan = quick(f"method={method}")
    with pytest.raises(UserError, match=r"the model has none: choose another model with model="):
        plan.method.check(facts_of(plan, nn.Linear(4, 2)))
    plan.method.check(facts_of(plan, nn.Sequential(nn.Conv2d(1, 2, 3))))


def test_a_kernel_that_is_not_square_is_refused_by_ct_alone(quick: Quick) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, (3, 1)))
    ct, msg = quick("method=ct"), quick("method=msg")
    with pytest.raises(UserError, match=r"0 has kernels of 3×1, and method=ct transposes square ones"):
        ct.method.check(facts_of(ct, model))
    msg.method.check(facts_of(msg, model))
