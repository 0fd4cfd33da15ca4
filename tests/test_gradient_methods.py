"""Methods by their gradient: two phases, negative gradient, NegGrad+ and l1-sparse."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.split import Batch
from methods.training.loop import Phase, fit
from methods.uniform_labels import uniform
from runner.plan import Plan
from tests.conftest import (
    FORGET,
    LEARNED,
    RETAIN,
    Stages,
    Weights,
    close,
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
Logged = list[dict[str, float]]


PLAIN = ["method.momentum=0", "method.weight_decay=0", "method.optimizer=sgd"]


# Two phases: dual-phase ascent and uniform labels


@pytest.mark.parametrize("method", ["dual_phase_ascent", "uniform_labels"])
def test_two_phases_spend_both_parts_in_every_epoch_and_log_both(quick: Quick, method: str) -> None:
    stages = stages_of(quick(f"method={method}", "method.batch_size=8", "method.epochs=3"))
    assert cost_of(stages)["gradient_examples"] == 3 * (FORGET + RETAIN)
    curves = stages.unlearn(stages.pretrain()).read("curves.json")
    assert [point["epoch"] for point in curves if "forget_loss" in point] == [1, 2, 3]
    assert [point["epoch"] for point in curves if "retain_loss" in point] == [1, 2, 3]
    rates = [point["forget_lr"] / stages.plan.method.lr for point in curves if "forget_lr" in point]  # type: ignore[attr-defined]
    assert rates == pytest.approx([stages.plan.method.factor] * 3)  # type: ignore[attr-defined]


def test_a_shared_momentum_carries_the_ascent_on_at_the_full_rate(quick: Quick) -> None:
    """One step of ascent g and nine of descent: alone it moves the weights by αβg, and a shared momentum
    adds α(μ + … + μ⁹)g for any β, while the weights move too little to change a gradient."""

    def ended(factor: float, shared: bool) -> Tensor:
        options = ["method=dual_phase_ascent", "method.batch_size=20", "method.epochs=1"]
        given = [f"method.factor={factor}", f"method.shared_momentum={str(shared).lower()}"]
        weights = unlearned_of(stages_of(quick(*options, "method.lr=1e-4", *given)))
        return torch.cat([value.double().flatten() for value in weights.values()])

    ascent = ended(1, shared=False) - ended(0, shared=False)
    for factor in (0, 0.3):
        carried = ended(factor, shared=True) - ended(factor, shared=False)
        assert close(carried, sum(0.9**k for k in range(1, 10)) * ascent, rel=0.05)


def test_shared_momentum_matters_where_there_is_momentum_alone(quick: Quick) -> None:
    def unlearned_with(*overrides: str) -> Weights:
        options = ["method=dual_phase_ascent", "method.batch_size=8", "method.epochs=1"]
        return unlearned_of(stages_of(quick(*options, *overrides)))

    shared, apart = (f"method.shared_momentum={value}" for value in ("true", "false"))
    assert same(*(unlearned_with(each, "method.momentum=0") for each in (shared, apart)))
    assert not same(unlearned_with(shared), unlearned_with(apart))


def test_a_factor_of_zero_leaves_fine_tuning(quick: Quick) -> None:
    stages = stages_of(
        quick(
            "method=dual_phase_ascent", "method.batch_size=8", "method.epochs=2", "method.factor=0",
            "method.shared_momentum=false",
        )
    )  # fmt: skip
    a, b = problem_of(stages), problem_of(stages)
    conditions = replace(b.conditions, streams=b.conditions.streams.part("retain"))
    tuned = fit(b.model, b.retain, stages.plan.method, conditions)  # type: ignore[arg-type]
    assert same(state_of(stages.plan.method.unlearn(a)), state_of(tuned))


def test_ascent_raises_the_forget_loss_and_the_other_phase_holds_the_rest(quick: Quick) -> None:
    trained = [*LEARNED, "method.batch_size=8"]
    stages = stages_of(
        quick("method=dual_phase_ascent", *trained, "method.epochs=10", "method.lr=0.002")
    )
    logged: list[dict[str, float]] = []
    problem = problem_of(stages, log=logged)
    stages.plan.method.unlearn(problem)
    forget = [point["forget_loss"] for point in logged if "forget_loss" in point]
    retain = [point["retain_accuracy"] for point in logged if "retain_accuracy" in point]
    assert forget[-1] > forget[0] + 1 and retain[-1] > 0.9


def test_the_uniform_target_is_ln_k_at_its_least(quick: Quick) -> None:
    batch = Batch(torch.empty(4, 0), torch.tensor([0, 1, 2, 3]), torch.arange(4))
    level = torch.zeros(4, 10, requires_grad=True)
    loss = uniform(level, batch)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(10))
    assert level.grad is not None and level.grad.abs().max() < 1e-8
    torch.manual_seed(0)
    assert uniform(torch.randn(4, 10), batch) > math.log(10)


# Negative gradient, and NegGrad+


def ascended(quick: Quick, *options: str) -> tuple[Stages, Logged, Logged]:
    """Return the stages of negative gradient, all that it logged, and its stops among that."""
    stages = stages_of(quick("method=negative_gradient", *LEARNED, "method.momentum=0", *options))
    logged: Logged = []
    stages.plan.method.unlearn(problem_of(stages, log=logged))
    return stages, logged, [point for point in logged if "stopped_at_step" in point]


def test_negative_gradient_stops_at_the_mean_of_a_pass(quick: Quick) -> None:
    """Batches of 8, 8 and 4 rows have three losses, weighted by their rows."""
    stages, logged, stops = ascended(quick, "method.lr=0.02", "method.batch_size=8", "method.epochs=200")

    again = problem_of(stages)
    phase = Phase(again.model, again.forget, stages.plan.method, again.conditions, climbs=True)  # type: ignore[arg-type]
    losses: list[tuple[float, int]] = []
    means: list[float] = []
    for step in (step for epoch in range(200) for step in phase.steps(epoch)):
        losses.append((step.loss.item(), len(step.batch.rows)))
        last = losses[-3:]
        means.append(sum(loss * rows for loss, rows in last) / sum(rows for _, rows in last))
        if means[-1] >= math.log(10):
            break
    assert stops == [{"stopped_at_step": len(losses) - 1, "forget_loss": pytest.approx(means[-1])}]
    shown = [point["loss"] for point in logged if "loss" in point]
    first = sum(loss * rows for loss, rows in losses[:3]) / 20
    assert shown[0] == pytest.approx(first), "the curves show the loss that is climbed"
    epochs = [point["epoch"] for point in logged if "epoch" in point]
    assert epochs == list(range(1, math.ceil(len(losses) / 3) + 1))  # the last one, too, was begun
    earlier = [loss for loss, _ in losses[:-1]]
    assert max(earlier) >= math.log(10), "a single batch had reached the bound before"


def test_negative_gradient_stops_before_a_window_is_full(quick: Quick) -> None:
    """Twenty batches of a row make a pass. At this rate fewer of them exceed the bound in the mean."""
    _, _, (stop,) = ascended(quick, "method.lr=2", "method.batch_size=1", "method.epochs=50")
    assert stop["stopped_at_step"] < FORGET - 1
    assert stop["forget_loss"] >= math.log(10)


def test_neggrad_plus_is_one_weighted_step(quick: Quick) -> None:
    sizes = [f"method.batch_size={FORGET}", "data.limit=20", "method.epochs=1"]
    stages = stages_of(
        quick("method=negative_gradient_plus", *sizes, *PLAIN, "method.clip=null", "method.lr=0.1")
    )
    a, b = problem_of(stages, budget=2 * FORGET), problem_of(stages)  # one step
    after = stages.plan.method.unlearn(a)
    streams = b.conditions.streams("order"), None
    retain = next(iter(b.retain.batches(FORGET, streams[0])))
    forget = only_batch(b.forget)
    loss = 0.95 * F.cross_entropy(b.model(retain.images), retain.labels)
    loss = loss - 0.05 * F.cross_entropy(b.model(forget.images), forget.labels)
    loss.backward()
    for before, moved in zip(b.model.parameters(), after.parameters(), strict=True):
        assert before.grad is not None
        assert torch.allclose(moved, before - 0.1 * before.grad, atol=1e-6)


def test_neggrad_plus_without_ascent_is_fine_tuning(quick: Quick) -> None:
    options = ["method.batch_size=8", "method.epochs=2", "method.lr=0.01"]
    plus = stages_of(
        quick(
            "method=negative_gradient_plus", *options, "method.retain_weight=1", "method.momentum=0.9",
            "method.weight_decay=0.0005", "method.clip=null", "method.penalty=0",
            "method.evaluation_mode=false",
        )
    )  # fmt: skip
    assert same(unlearned_of(plus), unlearned_of(stages_of(quick("method=finetune", *options))))
    assert cost_of(plus)["gradient_examples"] == 2 * RETAIN + 15 * FORGET + 8  # 46 batches: 8, 8, 4, …


# l1-sparse


def test_the_penalty_fades_to_zero(quick: Quick) -> None:
    method = quick("method=l1_sparse", "method.epochs=5", "method.free_epochs=1").method
    shares = [method.coefficient(epoch) / method.strength for epoch in range(5)]  # type: ignore[attr-defined]
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_the_penalty_pulls_every_weight_towards_zero_by_its_sign(quick: Quick) -> None:
    def once(strength: float) -> tuple[Weights, Weights]:
        stages = stages_of(
            quick(
                "method=l1_sparse", "method.batch_size=180", "method.epochs=1", *PLAIN,
                "method.lr=0.1", f"method.strength={strength}",
            )
        )  # fmt: skip
        return original_of(stages), unlearned_of(stages)

    before, with_penalty = once(0.01)
    _, without = once(0)
    for name, value in before.items():
        assert torch.allclose(with_penalty[name], without[name] - 0.1 * 0.01 * value.sign(), atol=1e-7)
