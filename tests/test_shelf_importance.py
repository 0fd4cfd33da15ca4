"""What the methods by importance, by distributions of weights and by frozen weights claim."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from data.errors import UserError
from data.split import Dataset, Split
from data.streams import Streams
from methods.assd import ratio_at
from methods.base import Method, Problem
from methods.distillation_guided import DIVERGENCES, Beside, Direction, DistillationGuided
from methods.distruction import DiStruction, StepRule, Unlearning, explicit, proximal
from methods.families.dampening import dampen, measured
from methods.fisher_forgetting import FisherForgetting
from methods.forgetting_layers import activity_on_forgotten, fade
from methods.just_in_time import Steepness
from methods.recording.bayesian import deviation_of
from methods.selective_finetune import SelectiveFinetune, classes_of, masks_of
from methods.training.cost import Meter
from methods.training.loop import Conditions
from methods.weights.gaussian import Gaussian, Moments, descended_deviation, divergence, moments, pull
from methods.weights.heads import head_of, hidden_of
from methods.weights.importance import (
    Importance,
    batch_fisher,
    expected_fisher,
    per_sample_fisher,
    ratio_bound,
    sensitivity,
    squares_of_layer,
)
from methods.weights.masks import only
from methods.weights.per_sample_gradients import Capture, Factors
from models.architecture import Architecture
from runner.pipeline import run
from runner.plan import Plan
from runner.stages.models import MODEL
from tests.conftest import Stages, plan_of, stages_of
from tests.test_per_sample_gradients import Twice

Quick = Callable[..., Plan]
LEARNED = ["training.epochs=30", "training.lr=0.05"]


def conditions_of(plan: Plan, budget: int | None = None) -> Conditions:
    meter = Meter(torch.device("cpu"), budget)
    return Conditions(Streams(0, "test"), meter, lambda values: None, plan.recipe)


def problem_of(stages: Stages, method: Method | None = None) -> Problem:
    return stages.problem(method or stages.plan.method, stages.pretrain(), conditions_of(stages.plan))


def weights_of(stages: Stages) -> dict[str, Tensor]:
    return load_file(stages.unlearn(stages.pretrain()).path / MODEL)


def close(found: Tensor, wanted: Tensor, rel: float = 1e-5) -> bool:
    return bool((found - wanted).norm() <= rel * wanted.norm() + 1e-12)


# Fisher information, row by row


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
    """The same rows with 32 pixels a side, on which every model of the catalogue can look."""
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
    """One, few (over pairs) and many positions are three ways to one sum."""
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


# Selective dampening


def test_ssd_selects_nothing_where_alpha_reaches_the_ratio_of_rows(quick: Quick) -> None:
    for alpha, same in (("10", True), ("10.5", True), ("3", False)):
        stages = stages_of(quick(*LEARNED, "method=ssd", f"method.alpha={alpha}"))
        original = load_file(stages.pretrain().path / MODEL)
        unlearned = weights_of(stages)
        assert all(torch.equal(original[name], unlearned[name]) for name in original) == same


@pytest.mark.parametrize(
    ("method", "bound", "below"),
    [
        (["method=ssd"], 10.0, 9.9),
        (["method=ssd", "method.fisher=batch", "method.batch_size=16"], 14 / 2, 6.9),
        (["method=lfssd", "method.batch_size=16"], 14 / 2, 6.9),
    ],
    ids=["rows", "batches", "label-free"],
)
def test_an_alpha_that_can_select_nothing_is_told_before_the_run(
    quick: Quick, caplog: pytest.LogCaptureFixture, method: list[str], bound: float, below: float
) -> None:
    with caplog.at_level(logging.WARNING):
        _ = stages_of(quick(*method, f"method.alpha={below}")).request
        assert "selects no weight" not in caplog.text
        stages = stages_of(quick(*method, f"method.alpha={bound}"))
        _ = stages.request
    assert "selects no weight" in caplog.text and f"{bound:.3g} times" in caplog.text
    assert not (stages.plan.root / "store" / "pretrain").exists()


def test_no_ratio_of_importances_exceeds_the_bound(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, "method=ssd"))
    for measure, size in ((per_sample_fisher, None), (batch_fisher, 16), (sensitivity, 16)):
        forget, everything = measured(problem_of(stages), measure, size or 16)
        bound = ratio_bound(20, 200, size)
        for name in forget.sums:
            assert (forget.mean(name) <= bound * everything.mean(name) * (1 + 1e-12)).all()


def test_everything_is_measured_as_if_it_were_one_part(quick: Quick) -> None:
    """The parts' sums put together are a pass over all rows."""
    stages = stages_of(quick(*LEARNED, "method=ssd"))
    problem = problem_of(stages)
    forget, everything = measured(problem, per_sample_fisher, 16)
    cost = problem.conditions.meter.cost.gradient_examples
    assert cost == len(stages.dataset.train)
    conditions = conditions_of(stages.plan)
    whole = per_sample_fisher(problem.model, stages.dataset.train, 64, conditions)
    own = stages.dataset.train.only(stages.request.rows)
    part = per_sample_fisher(problem.model, own, 64, conditions)
    assert all(close(everything.mean(name), whole.mean(name)) for name in whole.sums)
    assert all(close(forget.mean(name), part.mean(name)) for name in part.sums)


def test_in_a_request_to_relabel_the_forgotten_rows_count_once_and_as_they_were(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, "method=ssd", "scenario=relabel"))
    problem = problem_of(stages)
    _, everything = measured(problem, per_sample_fisher, 16)
    whole = per_sample_fisher(problem.model, stages.dataset.train, 64, conditions_of(stages.plan))
    assert all(close(everything.mean(name), whole.mean(name)) for name in whole.sums)


def test_ssd_gives_the_same_weights_whatever_the_order_of_the_rows(quick: Quick, tmp_path: Path) -> None:
    method = [*LEARNED, "method=ssd", "method.alpha=3"]
    stages = stages_of(quick(*method))
    shuffled = stages_of(quick(*method, "method.batch_size=11", f"paths.root={tmp_path / 'b'}"))
    problems = problem_of(stages), problem_of(shuffled)
    problems[1].model.load_state_dict(problems[0].model.state_dict())
    for part in ("forget", "retain"):
        split: Split = getattr(problems[1], part)
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(3))
        setattr(problems[1], f"declared_{part}", split.take(order))
    a, b = (s.plan.method.unlearn(p) for s, p in zip((stages, shuffled), problems, strict=True))
    for one, other in zip(a.parameters(), b.parameters(), strict=True):
        assert close(one, other, 1e-4)


def test_without_dampening_strength_what_is_selected_becomes_zero(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, "method=ssd", "method.alpha=3", "method.dampening=0"))
    forget, everything = measured(problem_of(stages), per_sample_fisher, 64)
    original, unlearned = load_file(stages.pretrain().path / MODEL), weights_of(stages)
    for name, value in original.items():
        chosen = forget.mean(name) > 3 * everything.mean(name)
        assert torch.equal(unlearned[name], torch.where(chosen, 0.0, value))
    assert any((forget.mean(name) > 3 * everything.mean(name)).any() for name in forget.sums)


def test_dampening_is_the_papers_formula() -> None:
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.ones(1, 4)
    forget = Importance({"weight": torch.tensor([[16.0, 16.0, 0.0, 2.0]])}, 2)
    everything = Importance({"weight": torch.tensor([[4.0, 12.0, 0.0, 4.0]])}, 4)
    assert dampen(layer, forget, everything, alpha=2, dampening=4) == 0.5
    assert torch.equal(layer.weight, torch.tensor([[0.5, 1.0, 1.0, 1.0]])), "never enlarged"


@pytest.mark.parametrize("rows", [(2, 20), (3, 21), (7, 49), (131, 1441)])
def test_a_weight_that_only_forgotten_rows_move_is_at_the_bound_and_not_above(
    rows: tuple[int, int],
) -> None:
    """To the last bit, down to the smallest numbers there are."""
    sums = torch.tensor([[1.0, 1 / 3, 1e-20, 1.1e-38, 3e-45, 7e-42]])
    layer = nn.Linear(6, 1, bias=False)
    part, whole = (Importance({"weight": sums}, count) for count in rows)
    assert dampen(layer, part, whole, alpha=rows[1] / rows[0], dampening=1) == 0
    assert dampen(layer, part, whole, alpha=0.999 * rows[1] / rows[0], dampening=1) == 1


def test_ssd_forgets_a_class_and_keeps_the_others(quick: Quick) -> None:
    more = ["data.limit=100", "model.hidden=32"]
    row = run(quick(*LEARNED, *more, "method=ssd", "method.alpha=3"))
    assert row is not None and row.scores["original"]["train_forget_accuracy"] > 0.9
    assert row.scores["unlearned"]["train_forget_accuracy"] < 0.1
    assert row.scores["unlearned"]["train_retain_accuracy"] > 0.95


def test_assd_selects_the_share_that_follows_from_the_request(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, "method=assd"))
    made = stages.unlearn(stages.pretrain())
    (point,) = made.read("curves.json")
    assert point["selected"] == pytest.approx(math.log(1 + 100 * 20 / 200) / 100, abs=1e-3)
    forget, everything = measured(problem_of(stages), per_sample_fisher, 64)
    each = [(forget.mean(name) / everything.mean(name)).flatten() for name in forget.sums]
    ratios = torch.cat(each).nan_to_num(0)
    wanted = torch.quantile(ratios, 1 - math.log(11) / 100)
    assert point["alpha"] == pytest.approx(wanted.item(), rel=0.02)


def test_the_percentile_is_of_all_weights_and_nothing_over_nothing_is_zero() -> None:
    forget = Importance({"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([[4.0, 0.0]])}, 1)
    everything = Importance({"a": torch.ones(3), "b": torch.tensor([[1.0, 0.0]])}, 1)
    assert [ratio_at(forget, everything, p) for p in (0, 20, 60, 61, 100)] == [0, 0, 2, 3, 4]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=ssd", "method.alpha=-1"], "method.alpha=-1"),
        (["method=ssd", "method.dampening=nan"], "method.dampening=nan"),
        (["method=lfssd", "method.batch_size=0"], "method.batch_size=0"),
        (["method=fisher_forgetting", "method.cap=-1"], "method.cap=-1"),
        (["method=just_in_time", "method.noise=0"], "method.noise=0"),
        (["method=just_in_time", "method.samples=0"], "method.samples=0"),
        (["method=selective_finetune", "method.share=0"], "method.share=0"),
        (["method=selective_finetune", "method.penalty=-1"], "method.penalty=-1"),
        (["method=distillation_guided", "method.temperature=0"], "method.temperature=0"),
        (["method=distillation_guided", "method.teacher_widths=[8]"], "method.teacher_widths=[8]"),
        (["method=distillation_guided", "method.teacher_hidden=0"], "method.teacher_hidden=0"),
        (["method=forgetting_layers", "method.rounds=0"], "method.rounds=0"),
        (["method=forgetting_layers", "method.tau=0"], "method.tau=0"),
        (["method=distruction", "recorder=[bayesian]", "method.penalty=1.5"], "method.penalty=1.5"),
        (["method=distruction", "recorder=[bayesian]", "method.samples=0"], "method.samples=0"),
        (["method=distruction", "recorder=[bayesian]", "method.eta=-1"], "method.eta=-1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(*overrides)
    assert words in str(refused.value)


# Fisher forgetting


def test_the_noise_is_what_the_retained_rows_do_not_need() -> None:
    method = FisherForgetting(1e-6, 1e3, 1e2, 10, 1e-4, 64)
    fisher = torch.tensor([[1e3, 1e3], [1.0, 1.0], [0.0, 0.0]])
    inner, head = method.variance(fisher, last=False), method.variance(fisher, last=True)
    assert torch.allclose(inner[:, 0], torch.tensor([1e-9, 1e-6, 1e-3]))
    assert torch.allclose(head[:, 0], torch.tensor([1e-8, 1e-5, 1e-3]), rtol=1e-4)
    assert torch.allclose(method.variance(fisher[:, 0], last=False), 10 * inner[:, 0])
    assert torch.allclose(method.variance(torch.tensor([[1.0, 2.0]]), False), torch.tensor(0.75e-6))


def test_fisher_forgetting_blanks_the_rows_of_classes_that_are_gone(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, "method=fisher_forgetting", "method.gone_variance=0"))
    unlearned = weights_of(stages)
    assert not unlearned["8.weight"][3].any() and not unlearned["8.bias"][3].any()
    assert unlearned["8.weight"][2].any()


# Just in time


def test_steepness_is_the_models_lipschitz_constant_where_it_is_linear() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16, bias=False))
    model[1].weight.data = 3 * torch.eye(16)
    images = torch.rand(5, 1, 4, 4)
    found = Steepness(model, 0.5, 4, torch.Generator().manual_seed(0))(images)
    assert torch.allclose(found, torch.full((5,), 3.0), atol=1e-4)


def test_just_in_time_flattens_the_model_around_the_forgotten_rows(quick: Quick) -> None:
    stages = stages_of(
        quick(
            *LEARNED,
            "method=just_in_time",
            "method.batch_size=20",
            "method.epochs=30",
            "method.lr=0.001",
        )
    )
    made = stages.unlearn(stages.pretrain())
    steep = [point["steepness"] for point in made.read("curves.json")]
    assert steep[-1] < 0.7 * steep[0]
    cost = made.read("cost.json")
    assert cost["gradient_examples"] == 20 * 30 and cost["forward_examples"] == 20 * 30 * 25


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


@pytest.mark.parametrize(("step", "rounds"), [(proximal, 200), (explicit, 20000)])
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
    assert stages.pretrain().checksum(MODEL) == plain.pretrain().checksum(MODEL), "the mean is frozen"
    deviation = deviation_of(stages.record("bayesian").path)
    original = load_file(stages.pretrain().path / MODEL)
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
    """Whichever watches the other."""
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
    assert prepared.checksum(MODEL) == plain.checksum(MODEL)


@pytest.mark.parametrize(("field", "value"), [("samples", 0), ("initial", 0), ("epochs", 0)])
def test_a_preparation_that_makes_no_sense_is_refused(quick: Quick, field: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"recorder\.bayesian\.{field}={value}"):
        quick("recorder=[bayesian]", f"recorder.bayesian.{field}={value}")


def test_poisoned_retained_rows_change_nothing_for_distruction(quick: Quick) -> None:
    """Whatever the retained rows hold once the record is made, the result is the same bits."""
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
    for weights in (load_file(stages.pretrain().path / MODEL), load_file(made.path / MODEL)):
        model.load_state_dict(weights)
        losses.append(F.cross_entropy(model(batch.images), batch.labels).item())
    assert losses[1] > losses[0]


def test_a_higher_penalty_keeps_the_weights_nearer(quick: Quick) -> None:
    """The last KL of each of paper 001's curves."""
    ends = []
    for penalty in (0.01, 0.3, 0.9):
        chosen = ["method=distruction", f"method.penalty={penalty}", "method.batch_size=20"]
        stages = stages_of(quick(*PREPARED, *chosen, "method.samples=3", "method.epochs=10"))
        ends.append(stages.unlearn(stages.pretrain()).read("curves.json")[-1]["kl"])
    assert ends[0] > ends[1] > ends[2] > 0


# Frozen weights

OPTIMIZERS = [
    ["method.optimizer=sgd", "method.momentum=0.9", "method.weight_decay=0.1", "method.lr=0.05"],
    ["method.optimizer=adamw", "method.weight_decay=0.1"],
    ["method.optimizer=adam", "method.weight_decay=0.1"],
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw", "adam"])
@pytest.mark.parametrize("importance", ["gradient", "weight"])
@pytest.mark.parametrize("method", ["selective_finetune", "distillation_guided"])
def test_what_is_frozen_keeps_every_bit(
    quick: Quick, method: str, importance: str, optimizer: list[str]
) -> None:
    chosen = [f"method={method}", f"method.importance={importance}", "method.batch_size=50"]
    stages = stages_of(quick("scenario=relabel", *chosen, *optimizer))
    problem = problem_of(stages)
    asked = stages.plan.method
    assert isinstance(asked, SelectiveFinetune | DistillationGuided)
    masks = masks_of(problem, asked.importance, asked.share, asked.batch_size)
    original, unlearned = load_file(stages.pretrain().path / MODEL), weights_of(stages)
    for name, value in original.items():
        frozen = ~masks.get(name, torch.zeros_like(value, dtype=torch.bool))
        assert torch.equal(unlearned[name][frozen], value[frozen]), name
    assert not torch.equal(unlearned["8.weight"][[3, 6]], original["8.weight"][[3, 6]])


def test_the_free_coordinates_are_those_that_the_paper_and_its_code_name(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, "scenario=relabel", "method=selective_finetune"))
    problem = problem_of(stages)
    assert classes_of(problem) == (6, 3)
    method = stages.plan.method
    assert isinstance(method, SelectiveFinetune)
    ((_, free),) = masks_of(problem, type(method.importance).gradient, 0.25, 50).items()
    assert free.sum(1).tolist() == [0, 0, 0, 16, 0, 0, 4, 0, 0, 0]
    masks = masks_of(problem, type(method.importance).weight, 0.25, 50)
    units = problem.model.state_dict()["8.weight"][6].abs().topk(4).indices
    assert masks.keys() == {"8.weight", "8.bias", "6.weight", "6.bias"}
    assert masks["8.bias"].nonzero()[:, 0].tolist() == [3, 6]
    assert set(masks["6.bias"].nonzero()[:, 0].tolist()) == set(units.tolist())
    assert masks["6.weight"][units].all() and masks["6.weight"].sum() == 4 * masks["6.weight"].shape[1]


def test_training_is_as_ever_where_everything_is_free_and_the_model_comes_back_whole() -> None:
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    b = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    b.load_state_dict(a.state_dict())
    x, y = torch.randn(8, 4), torch.randint(2, (8,))

    def learn(model: nn.Module) -> None:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    learn(a)
    with only(b, {name: torch.ones_like(p, dtype=torch.bool) for name, p in b.named_parameters()}):
        learn(b)
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())
    assert all(parameter.requires_grad for parameter in b.parameters())


@pytest.mark.parametrize(
    ("model", "head", "hidden"),
    [
        ("small_cnn", "8", "6"),
        ("resnet18", "fc", None),
        ("vit", "head", "blocks.5.mlp.2"),
        ("alexnet", "model.classifier.6", "model.classifier.4"),
    ],
)
def test_heads_are_found_in_every_model(model: str, head: str, hidden: str | None) -> None:
    plan = plan_of(f"model={model}", "dataset=cifar10")
    built = plan.architecture.fresh(3, 32, 10, 0)
    assert head_of(built, 10)[0] == head
    found = hidden_of(built)
    assert (None if found is None else found[0]) == hidden


def test_a_class_becomes_another(quick: Quick) -> None:
    learned = ["training.epochs=60", "training.lr=0.05", "model.hidden=64", "data.limit=40"]
    for method in ("selective_finetune", "distillation_guided"):
        more = ["method.lr=0.01", "method.epochs=15", "method.batch_size=50"]
        row = run(quick(*learned, "scenario=relabel", f"method={method}", *more))
        assert row is not None
        scores = row.scores["unlearned"]
        assert scores["train_forget_accuracy"] < 0.1
        assert scores["train_retain_accuracy"] > 0.8


def test_a_request_that_relabels_nothing_is_refused(quick: Quick) -> None:
    for method in ("selective_finetune", "distillation_guided"):
        stages = stages_of(quick(f"method={method}"))
        with pytest.raises(UserError, match="choose scenario=relabel"):
            _ = stages.request


def test_the_two_directions_of_the_divergence_are_the_papers_and_its_codes() -> None:
    ours, theirs = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.0, 0.5, 0.0]])
    p, q = ((logits / 2).softmax(1) for logits in (ours, theirs))
    paper = DIVERGENCES[Direction.paper](ours, theirs, 2.0)
    code = DIVERGENCES[Direction.code](ours, theirs, 2.0)
    assert torch.allclose(paper, (p * (p / q).log()).sum())
    assert torch.allclose(code, 4 * (q * (q / p).log()).sum())


def test_a_teacher_beside_a_student_does_not_learn() -> None:
    student, teacher = nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9))
    pair = Beside(student, teacher.requires_grad_(False)).train()
    assert student.training and not teacher.training
    pair(torch.ones(4, 3)).sum().backward()
    assert student.weight.grad is not None and teacher[0].weight.grad is None


# Forgetting layers


def test_a_faded_layer_is_a_layer_behind_faded_neurons() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 3), torch.randn(4, 5)
    rates = torch.rand(5)
    wanted = layer(x * (-rates / 0.7).exp())
    fade(layer, rates, 0.7)
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_the_busiest_neuron_on_the_forgotten_rows_fades_fastest(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, "method=forgetting_layers", "method.rounds=1", "method.epochs=0"))
    problem = problem_of(stages)
    _, head = head_of(problem.model, 10)
    activity = activity_on_forgotten(problem, head, 64)
    forget = next(stages.dataset.train.only(stages.request.rows).batches(20))
    assert torch.allclose(activity, problem.model[:8](forget.images).abs().sum(0), rtol=1e-4)  # type: ignore[index]
    before, after = head.weight.detach(), weights_of(stages)["8.weight"]
    factor = (after / before).mean(0)
    assert factor[activity.argmax()].item() == pytest.approx(math.exp(-1), rel=1e-3)
    assert torch.equal(factor.argsort(descending=True), activity.argsort(stable=True))


def test_importance_is_a_mean() -> None:
    """A mean over nothing is zero, and sums of parts are the whole's."""
    nothing = Importance({"w": torch.zeros(2)}, 0)
    something = Importance({"w": torch.tensor([2.0, 4.0])}, 2)
    assert not nothing.mean("w").any()
    assert nothing.joined(something).mean("w").tolist() == [1, 2]
