"""Methods that imitate an altered answer of the original: DELETE without the label, LoTUS with noise."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from data.errors import UserError
from data.split import Batch
from methods.base import Problem, accuracy
from methods.delete_kl import without_label
from methods.families.distillation import divergence
from methods.lotus import LoTUS, Target
from runner.plan import Plan
from tests.conftest import (
    FORGET,
    LEARNED,
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
SMALL = ["method.batch_size=20"]


# DELETE


def test_the_target_spreads_the_other_classes_over_the_whole() -> None:
    """By hand: probabilities 0.5, 0.3 and 0.2 without the first are 0, 0.6 and 0.4."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    target = without_label(logits, torch.tensor([0])).softmax(1)
    assert target[0].tolist() == pytest.approx([0, 0.6, 0.4])
    assert target[0, 0] == 0


def test_the_target_itself_has_no_gradient() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 10), torch.arange(6)
    target = without_label(logits, labels)
    at, off = target.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = divergence(target, at, 1)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, at)[0].abs().max() < 1e-7
    # elsewhere it is (p_θ − t)/B
    (found,) = torch.autograd.grad(divergence(target, off, 1), off)
    assert torch.allclose(found, (off.softmax(1) - target.softmax(1)) / 6, atol=1e-6)


def without_class(problem: Problem, label: int) -> None:
    """Let the original, and so the model, give a class no probability, whatever the image."""
    original = problem.original

    def changed() -> nn.Module:
        model = original()
        head = list(model.modules())[-1]
        with torch.no_grad():
            head.weight[label], head.bias[label] = 0, -1e10  # type: ignore[operator]
        return model

    problem.original, problem.model = changed, changed()


def test_a_model_that_gives_the_class_nothing_stays_as_it_is(quick: Quick) -> None:
    options = ["method=delete_kl", *SMALL, "method.epochs=5", "method.lr=0.01"]
    stages = stages_of(quick(*options, *LEARNED))
    fixed, moving = problem_of(stages), problem_of(stages)
    without_class(fixed, 3)
    for problem, moves in ((fixed, False), (moving, True)):
        before = state_of(problem.model)
        after = state_of(stages.plan.method.unlearn(problem))
        step = max(float((after[name] - value).abs().max()) for name, value in before.items())
        assert step > 1e-2 if moves else step < 1e-6


def test_it_forgets_the_class_and_keeps_the_others_without_their_rows(quick: Quick) -> None:
    stages = stages_of(quick("method=delete_kl", *SMALL, *LEARNED, "method.lr=0.0005"))
    problem = problem_of(stages)
    train, rows = stages.dataset.train, stages.request.rows
    model = stages.plan.method.unlearn(problem)
    assert accuracy(model, train.only(rows), problem.conditions) < 0.1
    assert accuracy(model, train.without(rows), problem.conditions) > 0.9


# LoTUS


def lotus_of(plan: Plan) -> LoTUS:
    assert isinstance(plan.method, LoTUS)
    return plan.method


def test_the_temperature_grows_with_what_the_student_still_knows(quick: Quick) -> None:
    method = lotus_of(quick("method=lotus", *SMALL))
    assert method.temperature(0) == 1
    assert method.temperature(1) == pytest.approx(math.exp(8))
    assert method.temperature(-0.25) == pytest.approx(math.exp(-2))
    assert replace(method, alpha=2).temperature(0.5) == pytest.approx(math.e)


class Constant(nn.Module):
    """The same logits for every image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def targets(problem: Problem, logits: Tensor, temperature: float, forgotten: bool) -> Tensor:
    """Return 4,000 targets of one row, forgotten or not, of which the original says `logits`."""
    problem.original = lambda: Constant(logits)
    row = (problem.forget if forgotten else problem.retain).rows[0]
    batch = Batch(torch.zeros(4000, 1, 8, 8), torch.zeros(4000).long(), row.expand(4000))
    return Target(problem)(batch, temperature)


def test_retained_targets_are_draws_from_the_originals_answer(quick: Quick) -> None:
    problem = problem_of(stages_of(quick("method=lotus", *SMALL)))
    found = targets(problem, torch.tensor([0.6, 0.3, 0.1]).log(), 50, forgotten=False)
    assert set(found.unique().tolist()) == {0, 1} and bool((found.sum(1) == 1).all())
    # four standard deviations of a frequency in 4,000 draws, at most 4·0.5/√4000
    assert (found.mean(0) - torch.tensor([0.6, 0.3, 0.1])).abs().max() < 0.032


def test_forgotten_targets_smooth_with_the_temperature(quick: Quick) -> None:
    problem = problem_of(stages_of(quick("method=lotus", *SMALL)))
    logits = torch.tensor([0.6, 0.3, 0.1]).log()
    cold, warm, hot = (targets(problem, logits, t, forgotten=True) for t in (1e-7, 1, 1e4))
    assert torch.allclose(hot, torch.full_like(hot, 1 / 3), atol=1e-3)
    assert torch.allclose(cold, targets(problem, logits, 1, forgotten=False), atol=1e-3)
    assert torch.allclose(warm.sum(1), torch.ones(4000), atol=1e-5)
    # the same noise at every temperature: log t is linear in 1/τ
    assert torch.allclose(
        (warm[:, 0] / warm[:, 1]).log() / 1e4, (hot[:, 0] / hot[:, 1]).log(), atol=1e-5
    )


def test_it_stops_once_the_forgotten_rows_are_less_accurate_than_unseen_ones(quick: Quick) -> None:
    plain = quick("method=lotus", *SMALL, "method.epochs=1", "training.epochs=5")
    known = problem_of(stages_of(plain))
    reached = accuracy(known.model, known.forget, known.conditions)
    assert reached < 0.98
    for above, stops in ((0.009, False), (0.011, True)):
        options = [f"method.validation_accuracy={reached + above}", "method.epochs=1"]
        stages = stages_of(quick("method=lotus", *SMALL, "training.epochs=5", *options))
        assert same(unlearned_of(stages), original_of(stages)) == stops
        spent = FORGET + round(0.3 * RETAIN)
        assert cost_of(stages)["gradient_examples"] == (0 if stops else spent)
        curves = stages.unlearn(stages.pretrain()).read("curves.json")
        assert curves[0]["accuracy_difference"] == pytest.approx(-above)


def test_it_stops_at_the_difference_itself(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.2 − 0.21 is above −0.01 by rounding."""
    assert 0.2 - 0.21 > -0.01
    monkeypatch.setattr("methods.lotus.accuracy", lambda *given: 0.2)
    stages = stages_of(quick("method=lotus", *SMALL, "method.validation_accuracy=0.21"))
    assert cost_of(stages)["gradient_examples"] == 0


def test_it_smooths_the_forgotten_rows_and_keeps_the_rest(quick: Quick) -> None:
    options = ["method=lotus", *SMALL, *LEARNED, "method.lr=0.005", "method.retain_fraction=1"]
    stages = stages_of(quick(*options))
    problem = problem_of(stages)
    model = stages.plan.method.unlearn(problem)
    assert accuracy(model, problem.retain, problem.conditions) > 0.9
    with torch.no_grad():
        before = problem.original().eval()(only_batch(problem.forget).images).softmax(1)
        after = model(only_batch(problem.forget).images).softmax(1)
    assert after[:, 3].mean() < before[:, 3].mean() / 2


def test_requests_that_retain_the_class_need_the_accuracy_on_unseen_rows(quick: Quick) -> None:
    random = ["method=lotus", *SMALL, "scenario=random", "method.epochs=1"]
    with pytest.raises(UserError, match=r"set method\.validation_accuracy .*or choose scenario="):
        _ = stages_of(quick(*random)).request
    stages = stages_of(quick(*random, "method.validation_accuracy=0"))
    assert cost_of(stages)["gradient_examples"] == FORGET + round(0.3 * RETAIN)


@pytest.mark.parametrize("option", ["alpha=81.0", "retain_fraction=2.0", "validation_accuracy=1.5"])
def test_numbers_without_sense_are_refused(quick: Quick, option: str) -> None:
    with pytest.raises(UserError, match=rf"method\.{option}: it must be at least 0 and at most"):
        quick("method=lotus", f"method.{option}")
