"""Methods that dampen or disturb weights: SSD, LFSSD, ASSD, Fisher forgetting, just in time and
forgetting layers."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from data.split import Split
from methods.assd import ratio_at
from methods.families.dampening import dampen, measured
from methods.fisher_forgetting import FisherForgetting
from methods.forgetting_layers import activity_on_forgotten, fade
from methods.just_in_time import Steepness
from methods.weights.heads import head_of
from methods.weights.importance import (
    Importance,
    batch_fisher,
    per_sample_fisher,
    ratio_bound,
    sensitivity,
)
from runner.plan import Plan
from tests.conftest import (
    LEARNED,
    close,
    conditions_of,
    original_of,
    plan_of,
    problem_of,
    result_of,
    stages_of,
    state_of,
    unlearned_of,
)

Quick = Callable[..., Plan]


# Selective dampening


def test_ssd_selects_nothing_where_alpha_reaches_the_ratio_of_rows(quick: Quick) -> None:
    for alpha, same in (("10", True), ("10.5", True), ("3", False)):
        stages = stages_of(quick(*LEARNED, "method=ssd", f"method.alpha={alpha}"))
        original = original_of(stages)
        unlearned = unlearned_of(stages)
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
def test_a_warning_names_an_alpha_that_can_select_nothing(
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
    """The sums over the parts add up to those of a pass over all rows."""
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
    original, unlearned = original_of(stages), unlearned_of(stages)
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
    """This holds to the last bit, down to the smallest floats."""
    sums = torch.tensor([[1.0, 1 / 3, 1e-20, 1.1e-38, 3e-45, 7e-42]])
    layer = nn.Linear(6, 1, bias=False)
    part, whole = (Importance({"weight": sums}, count) for count in rows)
    assert dampen(layer, part, whole, alpha=rows[1] / rows[0], dampening=1) == 0
    assert dampen(layer, part, whole, alpha=0.999 * rows[1] / rows[0], dampening=1) == 1


def test_ssd_forgets_a_class_and_keeps_the_others(quick: Quick) -> None:
    more = ["data.limit=100", "model.hidden=32"]
    scores = result_of(quick(*LEARNED, *more, "method=ssd", "method.alpha=5")).scores
    assert scores["original"]["train_forget_accuracy"] > 0.9
    assert scores["unlearned"]["train_forget_accuracy"] < 0.1
    assert scores["unlearned"]["train_retain_accuracy"] > 0.95


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
    unlearned = unlearned_of(stages)
    assert not unlearned["8.weight"][3].any() and not unlearned["8.bias"][3].any()
    assert unlearned["8.weight"][2].any()


# Just in time


def test_steepness_is_the_models_lipschitz_constant_where_it_is_linear() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16, bias=False))
    model[1].weight.data = 3 * torch.eye(16)
    images = torch.rand(5, 1, 4, 4)
    found = Steepness(model, 0.5, 4, torch.Generator().manual_seed(0))(images)
    assert torch.allclose(found, torch.full((5,), 3.0), atol=1e-4)


def test_a_batch_of_one_value_leaves_no_room_for_noise() -> None:
    """x + ξ is clamped to the range of the batch: a grey image alone has only itself around it."""
    model, grey = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.full((1, 1, 4, 4), 0.5)
    steep = Steepness(model, 0.5, 4, torch.Generator().manual_seed(0))(grey)
    steep.sum().backward()
    assert steep.item() == 0
    assert all((weight.grad == 0).all() for weight in model.parameters() if weight.grad is not None)


def test_compilation_leaves_the_noise_as_it_is(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    found = []
    for compiled in (False, True):
        given = problem_of(stages_of(quick("method=just_in_time", "method.batch_size=8")))
        recipe = replace(given.recipe, compile=compiled)
        given = replace(given, conditions=replace(given.conditions, recipe=recipe))
        with given.conditions.meter:
            made = plan_of("method=just_in_time", "method.batch_size=8").method.unlearn(given)
        found.append(state_of(made))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


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
    before, after = head.weight.detach(), unlearned_of(stages)["8.weight"]
    factor = (after / before).mean(0)
    assert factor[activity.argmax()].item() == pytest.approx(math.exp(-1), rel=1e-3)
    assert torch.equal(factor.argsort(descending=True), activity.argsort(stable=True))
