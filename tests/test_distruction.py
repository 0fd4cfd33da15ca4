"""DiStruction: distributions over weights, its steps, and the record that prepares it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.distruction import DiStruction, StepRule, Unlearning, explicit, proximal
from methods.recording.bayesian import deviation_of
from methods.weights.gaussian import Gaussian, Moments, descended_deviation, divergence, moments, pull
from models.architecture import Architecture
from runner.plan import Plan
from tests.conftest import (
    LEARNED,
    Stages,
    checksum_of,
    close,
    original_of,
    problem_of,
    same,
    stages_of,
    weights_in,
)

Quick = Callable[..., Plan]


# Gaussians over weights


def one(mean: float, deviation: float) -> Gaussian:
    return Gaussian({"w": number(mean)}, {"w": number(deviation)})


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_bgd_adds_a_quadratics_curvature_to_the_precision() -> None:
    """On ½hθ², H = σh, and 1/σ² grows by about h a step (METHODS.md A.8: 0.004361 against 0.004364)."""
    deviation, h = number(0.02), 50.0
    for _ in range(1000):
        before = deviation
        deviation = descended_deviation(deviation, deviation * h)
        x = before.square() * h
        exact = 1 / before.square() + h * (1 + x.square() / 4).sqrt() + x * h / 2
        assert torch.allclose(1 / deviation.square(), exact)
    assert deviation.item() == pytest.approx(0.004361, abs=1e-6)
    assert deviation.item() == pytest.approx((1 / 0.02**2 + 1000 * h) ** -0.5, rel=1e-3)


@given(deviation=st.floats(1e-6, 10), product=st.floats(-1e6, 1e6))
def test_the_deviation_stays_above_zero_and_is_bgds(deviation: float, product: float) -> None:
    exact = deviation * math.sqrt(1 + (deviation * product / 2) ** 2) - deviation**2 * product / 2
    found = descended_deviation(torch.tensor(deviation), torch.tensor(product)).item()
    assert found > 0 and math.isfinite(found)
    assert found == pytest.approx(exact, rel=1e-3, abs=1e-6 * deviation**2 * abs(product) + 1e-12)


def test_the_moments_are_those_of_the_samples() -> None:
    """Of ½hθ², E[g] = hμ and E[g·ε] = σh (Stein)."""
    model = nn.Linear(200, 1, bias=False)
    q = Gaussian({"weight": torch.full((1, 200), 2.0)}, {"weight": torch.full((1, 200), 0.5)})
    rng = torch.Generator().manual_seed(0)
    found = moments(model, q, lambda: 1.5 * model.weight.square().sum(), 2000, rng)
    assert found.gradient["weight"].mean().item() == pytest.approx(3 * 2, rel=0.01)
    assert found.product["weight"].mean().item() == pytest.approx(3 * 0.5, rel=0.02)
    assert found.loss.item() == pytest.approx(1.5 * 200 * (4 + 0.25), rel=0.01)


def test_the_divergence_is_zero_for_equals_alone_and_is_torchs() -> None:
    p = one(0.3, 0.1)
    assert divergence(p, p) == 0
    for mean, deviation in ((0.3, 0.2), (0.4, 0.1), (0.3, 0.05), (-1, 3)):
        q = one(mean, deviation)
        normal = [torch.distributions.Normal(d.mean["w"], d.deviation["w"]) for d in (q, p)]
        wanted = torch.distributions.kl_divergence(*normal).sum()
        assert divergence(q, p) > 0 and torch.allclose(divergence(q, p), wanted)


def test_the_divergences_gradient_has_the_right_sign() -> None:
    """Paper 001 prints (μ_p − μ_q)/σ_p², which under descent would push q away from p."""
    q, p = one(0.5, 0.2), one(0.3, 0.1)
    mean, deviation = q.mean["w"].requires_grad_(), q.deviation["w"].requires_grad_()
    at = Gaussian({"w": mean}, {"w": deviation})
    wanted = torch.autograd.grad(divergence(at, p), (mean, deviation))
    found = pull(q.mean["w"], q.deviation["w"], p.mean["w"], p.deviation["w"])
    assert all(torch.allclose(a, b) for a, b in zip(found, wanted, strict=True))
    assert found[0] > 0, "descent leads from 0.5 towards 0.3"


def distruction(**fields: object) -> DiStruction:
    method = DiStruction(
        objective=Unlearning.entropy, step=StepRule.proximal, epochs=1, batch_size=8, samples=2,
        penalty=0.1, eta=1, pull_rate=1e-6,
    )  # fmt: skip
    return replace(method, **fields)  # type: ignore[arg-type]


def felt(gradient: float, product: float) -> Moments:
    return Moments({"w": number(gradient)}, {"w": number(product)}, torch.zeros(()))


@pytest.mark.parametrize("step", [proximal, explicit])
def test_without_a_penalty_a_step_is_bayesian_gradient_descent(step: object) -> None:
    q, p = one(0.5, 0.2), one(0.3, 0.1)
    found = q.copy()
    step(distruction(penalty=0, eta=1.5), found, p, felt(0.7, -1.3))  # type: ignore[operator]
    assert torch.allclose(found.mean["w"], q.mean["w"] - 1.5 * 0.2**2 * 0.7)
    wanted = descended_deviation(q.deviation["w"], number(-1.3))
    assert torch.allclose(found.deviation["w"], wanted)


@pytest.mark.parametrize(("step", "rounds"), [(proximal, 200), (explicit, 400)])
def test_without_an_objective_steps_lead_back_to_the_original(step: object, rounds: int) -> None:
    method, p = distruction(penalty=0.5, pull_rate=1e-3), one(0.3, 0.1)
    for q in (one(0.5, 0.2), one(-1, 0.01)):
        for _ in range(rounds):
            step(method, q, p, felt(0, 0))  # type: ignore[operator]
            assert q.deviation["w"] > 0
        assert q.mean["w"].item() == pytest.approx(0.3, abs=1e-6)
        assert q.deviation["w"].item() == pytest.approx(0.1, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    gradient=st.floats(-100, 100), product=st.floats(-100, 100), penalty=st.floats(0, 1),
)  # fmt: skip
def test_the_proximal_step_is_the_minimum_of_its_objective(
    gradient: float, product: float, penalty: float
) -> None:
    """KL(q'‖q) + λKL(q'‖p) + Gμ' + Hσ' has no slope where the step ends."""
    q, p = one(0.5, 0.2), one(0.3, 0.1)
    found = q.copy()
    proximal(distruction(penalty=penalty), found, p, felt(gradient, product))
    mean, deviation = found.mean["w"].requires_grad_(), found.deviation["w"].requires_grad_()
    at = Gaussian({"w": mean}, {"w": deviation})
    value = divergence(at, q) + penalty * divergence(at, p) + gradient * mean + product * deviation
    slopes = torch.autograd.grad(value.sum(), (mean, deviation))
    scale = 1 + abs(gradient) + abs(product) + 1 / deviation.item()
    assert all(abs(slope.item()) < 1e-8 * scale for slope in slopes)


# DiStruction and its preparation


PREPARED = [*LEARNED, "recorder=[bayesian]", "recorder.bayesian.samples=4"]


def test_the_preparation_keeps_the_mean_and_one_deviation_per_weight(quick: Quick) -> None:
    plain, stages = stages_of(quick(*LEARNED)), stages_of(quick(*PREPARED))
    assert same(original_of(stages), original_of(plain)), "the mean is frozen"
    deviation = deviation_of(stages.record("bayesian").path)
    original = original_of(stages)
    assert {n: v.shape for n, v in deviation.items()} == {n: v.shape for n, v in original.items()}
    assert all((value > 0).all() and value.isfinite().all() for value in deviation.values())
    assert deviation["8.weight"].mean() < 0.02, "the rows hold the weights tighter than at the beginning"
    assert stages.record("bayesian").read("about.json") == {"gradient_examples": 4 * 200}


def test_the_preparation_follows_its_formula(quick: Quick) -> None:
    stages = stages_of(quick(*PREPARED, "recorder.bayesian.batch_size=100"))
    model = problem_of(stages, stages_of(quick("method=original")).plan.method).model.eval()
    mean = [value.detach().clone() for value in model.parameters()]
    deviation = [torch.full_like(value, 0.02) for value in mean]
    streams = stages.streams("record")
    order, noise = streams("order"), streams("noise")
    for batch in stages.dataset.train.batches(100, order):
        products = [torch.zeros_like(value) for value in mean]
        for _ in range(4):
            drawn = [torch.randn(value.shape, generator=noise) for value in mean]
            with torch.no_grad():
                for p, m, s, e in zip(model.parameters(), mean, deviation, drawn, strict=True):
                    p.copy_(m + s * e)
            loss = F.cross_entropy(model(batch.images), batch.labels, reduction="sum")
            parts = torch.autograd.grad(loss, list(model.parameters()))
            products = [h + g * e / 4 for h, g, e in zip(products, parts, drawn, strict=True)]
        deviation = [
            s * (1 + (s * h / 2) ** 2).sqrt() - s**2 * h / 2
            for s, h in zip(deviation, products, strict=True)
        ]
    found = deviation_of(stages.record("bayesian").path)
    for (name, _), wanted in zip(model.named_parameters(), deviation, strict=True):
        assert close(found[name], wanted, 1e-4)


def test_the_preparation_leaves_other_records_as_they_are(quick: Quick, tmp_path: Path) -> None:
    """The order of the recorders does not matter."""
    alone = stages_of(quick("recorder=[per_sample]"))
    alone.pretrain()
    both = stages_of(quick("recorder=[bayesian,per_sample]", f"paths.root={tmp_path / 'both'}"))
    turned = stages_of(quick("recorder=[per_sample,bayesian]", f"paths.root={tmp_path / 'turned'}"))
    for stages in (both, turned):
        stages.pretrain()
        for file in alone.record("per_sample").path.glob("*.bin"):
            other = stages.record("per_sample").path / file.name
            assert other.read_bytes() == file.read_bytes()
    one_, other_ = (deviation_of(stages.record("bayesian").path) for stages in (both, turned))
    assert all(torch.equal(one_[name], other_[name]) for name in one_)


@dataclass(frozen=True)
class Dropping(Architecture):
    """A network whose training draws random numbers."""

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        layers = [nn.Linear(channels * size * size, 16), nn.Dropout(0.5), nn.Linear(16, classes)]
        return nn.Sequential(nn.Flatten(), *layers)


def test_a_model_with_dropout_is_prepared_without_changing_a_bit(quick: Quick, tmp_path: Path) -> None:
    dropping = Dropping(weights=None, sha256=None, input_size=None)
    plain = stages_of(replace(quick(), architecture=dropping)).pretrain()
    plan = quick("recorder=[bayesian]", f"paths.root={tmp_path / 'prepared'}")
    prepared = stages_of(replace(plan, architecture=dropping)).pretrain()
    assert checksum_of(prepared) == checksum_of(plain)


def test_poisoned_retained_rows_change_nothing_for_distruction(quick: Quick) -> None:
    """Once the record is made, the retained rows do not decide a bit of the result."""
    method = quick(*PREPARED, "method=distruction", "method.batch_size=20", "method.samples=2")
    clean, poisoned = stages_of(method), stages_of(method)
    train = poisoned.dataset.train
    where = ~torch.isin(train.rows, poisoned.request.rows)
    train.images[where] = 255 - train.images[where]
    train.labels[where] = 0
    clean.pretrain()

    def unlearned(stages: Stages) -> dict[str, Tensor]:
        problem = problem_of(stages)
        problem.declared_recording = stages.record("bayesian").path
        return stages.plan.method.unlearn(problem).state_dict()

    a, b = unlearned(clean), unlearned(poisoned)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("objective", ["entropy", "ascent", "random_labels", "bad_teacher"])
@pytest.mark.parametrize("step", ["proximal", "explicit"])
def test_distruction_worsens_the_forgotten_rows_and_logs_its_divergence(
    quick: Quick, objective: str, step: str
) -> None:
    chosen = [f"method.objective={objective}", f"method.step={step}", "method.samples=3"]
    row_of = quick(*PREPARED, "method=distruction", *chosen, "method.batch_size=20", "method.epochs=4")
    stages = stages_of(row_of)
    made = stages.unlearn(stages.pretrain())
    points = made.read("curves.json")
    assert [point["step"] for point in points] == [0, 1, 2, 3]
    assert all(point["kl"] > 0 and math.isfinite(point["objective"]) for point in points)
    assert made.read("cost.json")["gradient_examples"] == 20 * 4 * 3
    model, forget = problem_of(stages).model, stages.dataset.train.only(stages.request.rows)
    batch = next(forget.batches(20))
    losses = []
    for weights in (original_of(stages), weights_in(made)):
        model.load_state_dict(weights)
        losses.append(F.cross_entropy(model(batch.images), batch.labels).item())
    assert losses[1] > losses[0]


def test_a_higher_penalty_keeps_the_weights_nearer(quick: Quick) -> None:
    """Paper 001's curves end in a lower KL for a higher penalty."""
    ends = []
    for penalty in (0.01, 0.3, 0.9):
        chosen = ["method=distruction", f"method.penalty={penalty}", "method.batch_size=20"]
        stages = stages_of(quick(*PREPARED, *chosen, "method.samples=3", "method.epochs=10"))
        ends.append(stages.unlearn(stages.pretrain()).read("curves.json")[-1]["kl"])
    assert ends[0] > ends[1] > ends[2] > 0
