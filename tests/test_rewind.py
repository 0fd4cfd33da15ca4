"""Rewind goes back to a checkpoint and on without the forgotten rows; its noise proves its claim."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from data.errors import UserError
from methods.recording.checkpoints import weights_after
from methods.rewind import Rewind
from methods.training.loop import fit
from methods.weights.certificate import EPSILON, delta_of, deviation_for
from runner.plan import Plan
from tests.conftest import (
    conditions_of,
    original_of,
    plan_of,
    result_of,
    same,
    stages_of,
    unlearned_of,
)

Quick = Callable[..., Plan]

REWIND = ["method=rewind", "recorder=[checkpoints]", "training.epochs=4"]

# Full-batch gradient descent on the 200 rows of a quick run, which a certificate needs.
DESCENT = [*REWIND, "training.batch_size=200", "training.momentum=0", "evaluation=quick"]
BOUNDS = ["method.smoothness=2", "method.gradient_norm=3"]


def rewind(*overrides: str) -> Rewind:
    method = plan_of(*REWIND, *overrides).method
    assert isinstance(method, Rewind)
    return method


def test_nothing_rewound_and_no_noise_is_the_original(quick: Quick) -> None:
    stages = stages_of(quick(*REWIND, "method.share=0"))
    assert same(unlearned_of(stages), original_of(stages))


def test_everything_rewound_is_retraining_from_the_initial_weights(quick: Quick) -> None:
    stages = stages_of(quick(*REWIND, "method.share=1", "training.schedule=cosine"))
    original = stages.pretrain()
    conditions = replace(conditions_of(stages.plan), streams=stages.streams("unlearn"))
    given = stages.problem(stages.plan.method, original, conditions)
    given.model.load_state_dict(weights_after(stages.record("checkpoints").path, 0))
    wanted = fit(given.model, given.retain, stages.plan.recipe, conditions).state_dict()
    assert same(unlearned_of(stages), wanted)


def test_the_steps_go_on_at_the_learning_rates_that_they_replace(quick: Quick) -> None:
    stages = stages_of(quick(*REWIND, "method.share=0.5", "training.schedule=cosine"))
    recipe, steps = stages.plan.recipe, math.ceil(180 / 64)
    points = stages.unlearn(stages.pretrain()).read("curves.json")
    found = {point["epoch"]: point["lr"] for point in points if "lr" in point}
    # a point holds the last rate of its epoch
    assert found == {e: pytest.approx(recipe.rate(e * steps - 1, steps)) for e in (3, 4)}
    assert {"rewound_epochs": 2}.items() <= points[-1].items()


@pytest.mark.parametrize(("share", "epochs", "again"), [(0.5, 3, 1), (0.29, 100, 29), (1, 7, 7)])
def test_the_share_is_rounded_down_to_whole_epochs(share: float, epochs: int, again: int) -> None:
    method = rewind(f"method.share={share}")
    assert method.rewound(replace(plan_of().recipe, epochs=epochs)) == again


def test_a_certificate_is_logged_and_its_noise_is_in_the_weights(quick: Quick) -> None:
    plain = unlearned_of(stages_of(quick(*DESCENT)))
    stages = stages_of(quick(*DESCENT, *BOUNDS))
    noisy = unlearned_of(stages)
    costs = result_of(stages.plan).costs["unlearned"]
    assert (costs["epsilon"], costs["delta"]) == (1, 0.00001)
    difference = torch.cat([(noisy[name] - plain[name]).flatten() for name in plain])
    # its standard error is σ/√(2M)
    error = costs["noise"] / math.sqrt(2 * len(difference))
    assert float(difference.std()) == pytest.approx(costs["noise"], abs=4 * error)
    distance = rewind(*BOUNDS).distance(stages.plan.recipe, 200, 20)
    assert costs["noise"] == pytest.approx(deviation_for(1, 0.00001, distance))
    assert "epsilon" not in result_of(quick(*DESCENT)).costs["unlearned"]


def test_a_certificate_prints_what_it_assumes(quick: Quick, caplog: pytest.LogCaptureFixture) -> None:
    unlearned_of(stages_of(quick(*DESCENT, *BOUNDS)))
    (said,) = [each for each in caplog.messages if each.startswith("certificate: (ε=1, δ=1e-05)")]
    for words in (
        "same initial weights",
        "2-smooth",
        "exceeds the norm 3",
        "nothing in a pass is random",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.momentum=0.9"], "set training.momentum=0, or method.smoothness=null"),
        (["training.batch_size=64"], "set training.batch_size=200, or"),
        (["training.schedule=cosine"], "set training.schedule=constant, or"),
        (
            ["training.optimizer=adam", "training.clip=1"],
            "training.optimizer=sgd training.clip=null, or",
        ),
        (["training.epochs=9000"], "noise beyond all numbers: rewind more"),
    ],
)
def test_a_certificate_of_another_descent_is_refused_before_training(
    quick: Quick, overrides: list[str], words: str
) -> None:
    stages = stages_of(quick(*DESCENT, *BOUNDS, "training.lr=0.5", *overrides))
    with pytest.raises(UserError) as refused:
        _ = stages.request
    assert words in str(refused.value)


def test_half_a_certificate_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"both method\.smoothness and method\.gradient_norm"):
        plan_of(*REWIND, "method.smoothness=1")


def descended(x: Tensor, y: Tensor, w: Tensor, steps: int) -> Tensor:
    """Return w after steps of rate 0.3 down the mean logistic loss."""
    for _ in range(steps):
        w = w - 0.3 * x.T @ ((x @ w).sigmoid() - y) / len(x)
    return w


@pytest.mark.parametrize("share", [0, 0.25, 0.75, 1])
def test_the_bound_holds_for_logistic_regression(share: float) -> None:
    """A row's gradient (p − y)x is shorter than x, and the loss is L-smooth with L = max ‖x‖²/4."""
    rng = torch.Generator().manual_seed(0)
    x, w = torch.randn(50, 6, generator=rng), torch.randn(6, generator=rng)
    y = (torch.arange(50) < 25).float()
    begin = round((1 - share) * 20)
    unlearned = descended(x[4:], y[4:], descended(x, y, w, begin), 20 - begin)
    distance = float((unlearned - descended(x[4:], y[4:], w, 20)).norm())
    longest = float(x.norm(dim=1).max())
    method = replace(rewind(f"method.share={share}"), smoothness=longest**2 / 4, gradient_norm=longest)
    bound = method.distance(replace(plan_of().recipe, epochs=20, lr=0.3), 50, 4)
    assert distance <= bound
    assert (distance == 0) == (bound == 0) == (share == 1)


def test_delta_is_the_largest_excess_of_one_gaussian_over_the_other() -> None:
    """δ(ε) = ∫ max(0, p − e^ε·q) for p = N(μ, 1) and q = N(0, 1)."""
    for epsilon, mu in ((0.5, 0.3), (1.0, 1.0), (3.0, 0.7)):
        edge = epsilon / mu + mu / 2  # where p = e^ε·q
        excess, _ = quad(
            lambda t, e=epsilon, m=mu: norm.pdf(t - m) - math.exp(e) * norm.pdf(t), edge, 40
        )
        assert delta_of(epsilon, mu) == pytest.approx(excess, rel=1e-6)


def test_the_deviation_is_the_smallest_that_proves_epsilon_and_delta() -> None:
    for epsilon, delta, distance in ((1, 1e-5, 1), (0.1, 1e-3, 20), (800, 1e-5, 0.5)):
        deviation = deviation_for(epsilon, delta, distance)
        assert delta_of(epsilon, distance / deviation) <= delta
        assert delta_of(epsilon, distance / (deviation * (1 - 1e-6))) > delta
    # a small Δ/σ has a coarser tolerance, but on the safe side
    for epsilon, delta in ((EPSILON.low, 1e-300), (EPSILON.low, 1e-5), (0.001, 1e-100), (1e6, 1e-300)):
        deviation = deviation_for(epsilon, delta, 1)
        assert delta_of(epsilon, 1 / deviation) <= delta
        assert delta_of(epsilon, 1 / (deviation * (1 - 1e-5))) > delta
    # the classical √(2 ln(1.25/δ))/ε is larger
    assert deviation_for(1, 1e-5, 1) == pytest.approx(3.7306, abs=1e-3)
    assert deviation_for(1, 1e-5, 0) == 0
