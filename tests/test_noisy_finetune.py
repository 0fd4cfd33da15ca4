"""Noisy fine-tuning: its steps are fine-tuning's, and its noise proves the ε and δ that it logs."""

import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from data.errors import UserError
from methods.finetune import Finetune
from methods.noisy_finetune import NoisyFinetune, clip_weights
from methods.training.descent import Descent, Optimizer, Schedule
from methods.weights.certificate import delta_of
from runner.plan import Plan
from tests.conftest import conditions_of, plan_of, problem_of, result_of, same, stages_of, unlearned_of

Quick = Callable[..., Plan]

NOISY = ["method=noisy_finetune", "method.noisy_epochs=3", "method.batch_size=32"]

# No noise and no clipping.
PLAIN = ["method.epsilon=null", "method.weight_norm=null", "method.gradient_norm=null"]


def method_of(*overrides: str) -> NoisyFinetune:
    method = plan_of(*NOISY, *(f"method.{text}" for text in overrides)).method
    assert isinstance(method, NoisyFinetune)
    return method


def test_without_noise_and_clipping_it_is_fine_tuning_with_weight_decay(quick: Quick) -> None:
    stages = stages_of(quick(*NOISY, *PLAIN, "method.epochs=0", "method.noisy_weight_decay=0.1"))
    method, original = stages.plan.method, stages.pretrain()
    assert isinstance(method, NoisyFinetune)
    descent = replace(
        method, epochs=3, lr=0.01, weight_decay=0.1, momentum=0.0, optimizer=Optimizer.sgd,
        schedule=Schedule.constant, warmup=0.0,
    )  # fmt: skip
    finetune = Finetune(**{field.name: getattr(descent, field.name) for field in fields(Descent)})
    conditions = replace(conditions_of(stages.plan), streams=stages.streams("unlearn"))
    wanted = finetune.unlearn(stages.problem(finetune, original, conditions)).state_dict()
    assert same(unlearned_of(stages), wanted)


def test_a_step_is_the_update_rule(quick: Quick) -> None:
    """x_1 = x_0 − γ(clip(g, C₁) + λx_0) + σξ, from x_0 = clip(θ_o, C₀)."""
    options = [
        "method.noisy_epochs=1",
        "method.batch_size=180",
        "method.epochs=0",
        "method.weight_norm=2",
    ]
    stages = stages_of(quick(*NOISY, *options, "method.gradient_norm=0.5"))
    given, method = problem_of(stages), stages.plan.method
    assert isinstance(method, NoisyFinetune)
    clip_weights(given.model, 2)
    names = [name for name, _ in given.model.named_parameters()]
    start = {name: value.detach().clone() for name, value in given.model.named_parameters()}
    size = torch.cat([value.flatten() for value in start.values()]).norm()
    assert float(size) == pytest.approx(2)
    (batch,) = given.retain.batches(180)
    loss = torch.nn.functional.cross_entropy(given.model(batch.images), batch.labels)
    gradient = torch.autograd.grad(loss, list(given.model.parameters()))
    norm = torch.cat([g.flatten() for g in gradient]).norm()
    rng = given.conditions.streams("noise")
    made = dict(method.unlearn(problem_of(stages)).named_parameters())
    for name, g in zip(names, gradient, strict=True):
        noise = method.deviation(1) * torch.randn(g.shape, generator=rng)
        wanted = start[name] - 0.01 * (g * min(1, 0.5 / float(norm)) + 50 * start[name]) + noise
        assert torch.allclose(made[name], wanted, atol=1e-5)


def test_weights_within_the_norm_are_not_scaled() -> None:
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    clip_weights(layer, 100)
    assert torch.equal(layer.weight, before)


def test_a_certificate_is_logged_and_printed_with_its_assumptions(
    quick: Quick, caplog: pytest.LogCaptureFixture
) -> None:
    costs = result_of(quick(*NOISY, "method.epsilon=2")).costs["unlearned"]
    assert costs["epsilon"] == pytest.approx(2) and costs["delta"] == 0.00001
    assert costs["noise"] == pytest.approx(method_of("epsilon=2").deviation(3 * 6))
    (said,) = [each for each in caplog.messages if each.startswith("certificate: (ε=2, δ=1e-05)")]
    assert "from any other weights" in said and "must not depend on the forgotten rows" in said
    assert "epsilon" not in result_of(quick(*NOISY, *PLAIN)).costs["unlearned"]


def test_fewer_noisy_steps_prove_less_and_the_log_says_how_much(quick: Quick) -> None:
    slow = [*NOISY, "method.noisy_weight_decay=0"]
    plan = quick(*slow, "budget.gradient_examples=200")
    costs = result_of(plan).costs["unlearned"]
    method = plan.method
    assert isinstance(method, NoisyFinetune)
    # 5 batches of 32 rows and one of 20 make a pass of 180; a seventh batch exceeds the budget
    assert costs["epsilon"] == pytest.approx(method.proved(6, method.deviation(18)))
    assert costs["epsilon"] > 1 and costs["cut_by_budget"] == 1


CASES = [(1, 0.01, 50.0), (30, 0.01, 50.0), (30, 0.01, 0.0), (7, 0.1, 1.0), (20, 0.5, 2.0)]


def driven_apart(method: NoisyFinetune, steps: int) -> tuple[float, float]:
    """Return the distance and the variance per σ² of two runs in one dimension.

    They begin at C₀ and −C₀, and their gradients are −C₁ and C₁ at every step.
    """
    assert method.weight_norm is not None and method.gradient_norm is not None
    x, variance, ratio = method.weight_norm, 0.0, 1 - method.noisy_lr * method.noisy_weight_decay
    for _ in range(steps):
        x = ratio * x + method.noisy_lr * method.gradient_norm
        variance = ratio**2 * variance + 1
    return 2 * x, variance


@pytest.mark.parametrize(("steps", "lr", "decay"), CASES)
def test_the_divergence_is_that_of_two_runs_that_are_driven_apart(
    steps: int, lr: float, decay: float
) -> None:
    """Their results are Gaussians, so the bound on μ = Δ/(σ√S) is attained."""
    method = method_of(f"noisy_lr={lr}", f"noisy_weight_decay={decay}")
    distance, variance = driven_apart(method, steps)
    assert method.spread(steps) == pytest.approx(distance / math.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize(("steps", "lr", "decay"), CASES[1:])
def test_the_shifts_are_the_cheapest_ones(steps: int, lr: float, decay: float) -> None:
    """min Σ a_t² such that z_{t+1} = ρz_t + 2γC₁ − a_{t+1} ≥ 0 ends at 0, found numerically."""
    method = method_of(f"noisy_lr={lr}", f"noisy_weight_decay={decay}", "weight_norm=1")
    ratio, push = 1 - lr * decay, 2 * lr

    def shifts(z: np.ndarray) -> np.ndarray:
        """Return a_1 … a_T that lead from z_0 = 2C₀ through z_1 … z_{T−1} to z_T = 0."""
        path = np.concatenate([[2.0], z, [0.0]])
        return ratio * path[:-1] + push - path[1:]

    start = np.linspace(2, 0, steps + 1)[1:-1]
    found = minimize(
        lambda z: (shifts(z) ** 2).sum(), start, bounds=[(0, None)] * (steps - 1), tol=1e-12
    )
    assert math.sqrt(found.fun) == pytest.approx(method.spread(steps), rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.1, 1, 8])
def test_the_order_is_the_best_and_the_claim_is_true(epsilon: float) -> None:
    """ε = min over q of qμ²/2 + ln(1/δ)/(q − 1); two Gaussians μ apart need a smaller δ for it."""
    method = method_of(f"epsilon={epsilon}", "delta=0.001")
    deviation = method.deviation(30)
    mu = method.spread(30) / deviation
    orders = 1 + np.logspace(-3, 6, 100_000)
    best = (orders * mu**2 / 2 + math.log(1000) / (orders - 1)).min()
    assert epsilon == pytest.approx(best, rel=1e-6)
    assert method.proved(30, deviation) == pytest.approx(epsilon)
    assert delta_of(epsilon, mu) < 0.001


def test_a_certificate_holds_for_samples_of_the_process() -> None:
    """The most distinguishing event of two runs that are driven apart: x > threshold."""
    method = method_of("noisy_weight_decay=5", "epsilon=0.5", "delta=0.01")
    assert method.weight_norm is not None and method.gradient_norm is not None
    deviation, rng = method.deviation(10), np.random.default_rng(0)
    ends = []
    for sign in (1, -1):
        x = np.full(200_000, sign * method.weight_norm)
        for _ in range(10):
            x = (
                x
                - 0.01 * (-sign * method.gradient_norm + 5 * x)
                + deviation * rng.standard_normal(len(x))
            )
        ends.append(x)
    for threshold in np.quantile(ends[0], [0.1, 0.5, 0.9, 0.99]):
        above, below = ((end > threshold).mean() for end in ends)
        assert below < above <= math.exp(0.5) * below + 0.01


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method.weight_norm=null"], "a certificate needs noisy steps that are clipped"),
        (["method.gradient_norm=null"], "or method.epsilon=null"),
        (["method.noisy_epochs=0"], "set method.noisy_epochs, "),
        (["method.noisy_weight_decay=101"], "their product must be at most 1"),
    ],
)
def test_what_proves_nothing_is_refused_at_once(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of("method=noisy_finetune", *overrides)
    assert words in str(refused.value)
