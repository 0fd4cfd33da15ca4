"""What the methods that descend claim, on small real runs."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from data.errors import UserError
from data.split import Batch
from data.streams import Streams
from methods.base import Access, Problem, accuracy
from methods.boundary_expand import narrow, widen
from methods.boundary_shrink import nearest_classes, stepped
from methods.families.distillation import Teacher, divergence
from methods.label_flip import flipped
from methods.salun import saliency
from methods.training.cost import Meter
from methods.training.loop import Conditions, Phase, cross_entropy, fit
from methods.uniform_labels import uniform
from methods.unsir import some_of_each, with_noise
from methods.weights.layers import last_layers
from methods.weights.masks import largest, only
from runner.pipeline import run
from runner.plan import Plan
from runner.stages.models import MODEL
from tests.conftest import Stages, plan_of, stages_of

Quick = Callable[..., Plan]
Weights = dict[str, Tensor]

# 20 of 200 rows are forgotten in most of these runs, 180 retained.
FORGET, RETAIN = 20, 180
AUGMENTED = ["dataset.crop=1", "dataset.flip=true"]
PLAIN = ["method.momentum=0", "method.weight_decay=0", "method.optimizer=sgd"]


def problem_of(stages: Stages, budget: int | None = None) -> tuple[Problem, list[dict[str, float]]]:
    """The run's problem, and the list that its curves go to."""
    logged: list[dict[str, float]] = []
    meter = Meter(torch.device("cpu"), budget)
    conditions = Conditions(
        Streams(0, "test"), meter, lambda values: logged.append(dict(values)), stages.plan.recipe
    )
    return stages.problem(stages.plan.method, stages.pretrain(), conditions), logged


def weights(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def unlearned(stages: Stages) -> Weights:
    return load_file(stages.unlearn(stages.pretrain()).path / MODEL)


def original(stages: Stages) -> Weights:
    return load_file(stages.pretrain().path / MODEL)


def spent(stages: Stages) -> dict[str, int]:
    cost: dict[str, int] = stages.unlearn(stages.pretrain()).read("cost.json")
    return cost


def only_batch(split: Any) -> Batch:
    return next(iter(split.batches(len(split))))


# Distillation


def test_the_divergence_is_zero_for_equal_outputs_alone() -> None:
    torch.manual_seed(0)
    logits, other = torch.randn(5, 10), torch.randn(5, 10)
    assert divergence(logits, logits, 2).item() == pytest.approx(0, abs=1e-6)
    assert divergence(logits, logits + 7, 2).item() == pytest.approx(0, abs=1e-6)  # the same softmax
    assert divergence(logits, other, 2) > 0.1


def test_the_divergence_by_hand() -> None:
    p, q = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    by_hand = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert divergence(p.log(), q.log(), 1).item() == pytest.approx(by_hand, rel=1e-5)
    assert divergence(2 * p.log(), 2 * q.log(), 2).item() == pytest.approx(4 * by_hand, rel=1e-5)


def test_a_teacher_has_no_gradients_and_is_counted(quick: Quick) -> None:
    problem, _ = problem_of(stages_of(quick()))
    teacher = Teacher(problem.original(), problem.conditions)
    assert not teacher(torch.randn(4, 1, 8, 8)).requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert problem.conditions.meter.cost.forward_examples == 4


# Bad teacher


def test_bad_teacher_comes_closer_to_its_teachers(quick: Quick) -> None:
    stages = stages_of(
        quick("method=bad_teacher", "method.batch_size=8", "method.epochs=20", "method.lr=0.01")
    )
    problem, _ = problem_of(stages)
    assert problem.forget is not None and problem.retain is not None
    forget, retain = only_batch(problem.forget).images, only_batch(problem.retain).images
    incompetent = Teacher(problem.fresh(problem.conditions.streams), problem.conditions)(forget)
    competent = Teacher(problem.original(), problem.conditions)(retain)
    before = Teacher(problem.original(), problem.conditions)(forget)
    student = Teacher(stages.plan.method.unlearn(problem), problem.conditions)
    assert divergence(incompetent, student(forget), 1) < divergence(incompetent, before, 1) / 2
    assert divergence(competent, student(retain), 1) < 0.2


def test_bad_teacher_sees_the_forgotten_rows_and_its_share_of_the_rest(quick: Quick) -> None:
    stages = stages_of(quick("method=bad_teacher", "method.batch_size=8"))
    assert spent(stages)["gradient_examples"] == FORGET + round(0.3 * RETAIN)


def test_bad_teacher_reads_no_label(quick: Quick) -> None:
    stages = stages_of(quick("method=bad_teacher", "method.batch_size=8"))
    a, b = problem_of(stages)[0], problem_of(stages)[0]
    for part in (b.forget, b.retain):
        assert part is not None
        part.labels.zero_()
    assert same(weights(stages.plan.method.unlearn(a)), weights(stages.plan.method.unlearn(b)))


# Two phases: dual-phase ascent and uniform labels


@pytest.mark.parametrize("method", ["dual_phase_ascent", "uniform_labels"])
def test_two_phases_spend_both_parts_in_every_epoch_and_log_both(quick: Quick, method: str) -> None:
    stages = stages_of(quick(f"method={method}", "method.batch_size=8", "method.epochs=3"))
    assert spent(stages)["gradient_examples"] == 3 * (FORGET + RETAIN)
    curves = stages.unlearn(stages.pretrain()).read("curves.json")
    assert [point["epoch"] for point in curves if "forget_loss" in point] == [1, 2, 3]
    assert [point["epoch"] for point in curves if "retain_loss" in point] == [1, 2, 3]
    rates = [point["forget_lr"] / stages.plan.method.lr for point in curves if "forget_lr" in point]  # type: ignore[attr-defined]
    assert rates == pytest.approx([stages.plan.method.factor] * 3)  # type: ignore[attr-defined]


def test_shared_momentum_matters_where_there_is_momentum_alone(quick: Quick) -> None:
    def run(*overrides: str) -> Weights:
        options = ["method=dual_phase_ascent", "method.batch_size=8", "method.epochs=1"]
        return unlearned(stages_of(quick(*options, *overrides)))

    shared, apart = (f"method.shared_momentum={value}" for value in ("true", "false"))
    assert same(run(shared, "method.momentum=0"), run(apart, "method.momentum=0"))
    assert not same(run(shared), run(apart))


def test_a_factor_of_zero_leaves_fine_tuning(quick: Quick) -> None:
    stages = stages_of(
        quick(
            "method=dual_phase_ascent", "method.batch_size=8", "method.epochs=2", "method.factor=0",
            "method.shared_momentum=false",
        )
    )  # fmt: skip
    a, b = problem_of(stages)[0], problem_of(stages)[0]
    assert b.retain is not None
    conditions = replace(b.conditions, streams=b.conditions.streams.part("retain"))
    tuned = fit(b.model, b.retain, stages.plan.method, conditions)  # type: ignore[arg-type]
    assert same(weights(stages.plan.method.unlearn(a)), weights(tuned))


def test_ascent_raises_the_forget_loss_and_the_other_phase_holds_the_rest(quick: Quick) -> None:
    trained = ["training.epochs=30", "training.lr=0.05", "method.batch_size=8"]
    stages = stages_of(
        quick("method=dual_phase_ascent", *trained, "method.epochs=10", "method.lr=0.002")
    )
    problem, logged = problem_of(stages)
    stages.plan.method.unlearn(problem)
    forget = [-point["forget_loss"] for point in logged if "forget_loss" in point]
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


# SCRUB


def scrub(quick: Quick, *overrides: str) -> Stages:
    sizes = ["method.batch_size=8", "method.forget_batch_size=8"]
    return stages_of(quick("method=scrub", *sizes, "method.lr=0.01", "method.epochs=4", *overrides))


def test_scrub_moves_the_student_and_never_the_teacher(quick: Quick) -> None:
    stages = scrub(quick)
    before = original(stages)
    problem, _ = problem_of(stages)
    teachers: list[nn.Module] = []
    load = problem.original

    def remembered() -> nn.Module:
        teachers.append(load())
        return teachers[-1]

    problem.original = remembered
    student = stages.plan.method.unlearn(problem)
    assert len(teachers) == 1 and same(weights(teachers[0]), before)
    assert not any(torch.equal(before[name], value) for name, value in weights(student).items())


def test_scrub_goes_away_on_the_forgotten_rows_and_stays_on_the_rest(quick: Quick) -> None:
    stages = scrub(
        quick, "training.epochs=30", "training.lr=0.05", "method.ascent_epochs=3",
        "method.kl_weight=0.5", "method.lr=0.003",
    )  # fmt: skip
    problem, _ = problem_of(stages)
    teacher = Teacher(problem.original(), problem.conditions)
    student = Teacher(stages.plan.method.unlearn(problem), problem.conditions)
    assert problem.forget is not None and problem.retain is not None
    away, near = (
        divergence(teacher(images), student(images), 1)
        for images in (only_batch(problem.forget).images, only_batch(problem.retain).images)
    )
    assert away > 10 * near


def test_scrub_climbs_in_its_first_epochs_alone(quick: Quick) -> None:
    stages = scrub(quick, "method.ascent_epochs=2")
    assert spent(stages)["gradient_examples"] == 4 * RETAIN + 2 * FORGET


def test_rewinding_keeps_the_epoch_whose_error_is_closest(quick: Quick) -> None:
    trained = ["training.epochs=30", "training.lr=0.05", "method.ascent_epochs=3"]
    method = scrub(quick, *trained).plan.method
    problem, _ = problem_of(scrub(quick, *trained))
    assert problem.forget is not None
    epochs = []
    for student in method.students(problem):  # type: ignore[attr-defined]
        epochs.append(((1 - accuracy(student, problem.forget, problem.conditions)), weights(student)))
    errors = [error for error, _ in epochs]
    assert len(set(errors)) > 1
    for wanted in set(errors):
        again, logged = problem_of(scrub(quick, *trained))
        kept = replace(method, rewind_error=wanted).unlearn(again)  # type: ignore[type-var]
        latest = max(epoch for epoch, error in enumerate(errors) if error == wanted)
        assert same(weights(kept), epochs[latest][1])
        assert [point["forget_error"] for point in logged if "forget_error" in point] == errors


# SalUn and masks


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_salun_leaves_what_is_not_salient_bit_identical(quick: Quick, optimizer: str) -> None:
    """Also under weight decay and momentum, which move a weight whose gradient is zero."""
    stages = stages_of(
        quick(
            "method=salun", "method.batch_size=8", "method.epochs=3", "method.share=0.3",
            f"method.optimizer={optimizer}", "method.weight_decay=0.1", "method.clip=1",
        )
    )  # fmt: skip
    problem, _ = problem_of(stages)
    masks = largest(saliency(problem, 8), 0.3)
    before, after = original(stages), unlearned(stages)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.3 * total)
    moved = sum(int((before[name] != after[name])[mask].sum()) for name, mask in masks.items())
    assert all(torch.equal(before[name][~mask], after[name][~mask]) for name, mask in masks.items())
    assert moved > 0.25 * total


def test_without_a_mask_weight_decay_moves_everything() -> None:
    """What the mask is for: no gradient at all, and yet the weights shrink."""
    layer = nn.Linear(3, 2)
    before = weights(layer)

    def step() -> None:
        optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        (0 * layer(torch.ones(1, 3)).sum()).backward()
        optimizer.step()

    with only(layer, {name: torch.zeros_like(value).bool() for name, value in before.items()}):
        step()
    assert same(before, weights(layer))
    step()
    assert not same(before, weights(layer))


def test_the_mask_takes_the_largest_of_all_weights_together() -> None:
    scores = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[1.0, 2.0]])}
    masks = largest(scores, 0.5)
    assert masks["a"].tolist() == [True, False] and masks["b"].tolist() == [[False, True]]


@pytest.mark.parametrize("augmented", [[], AUGMENTED])
def test_saliency_is_the_gradient_of_the_summed_loss(augmented: list[str], quick: Quick) -> None:
    problem, _ = problem_of(stages_of(quick("method=salun", "method.batch_size=8", *augmented)))
    scores = saliency(problem, 8)
    assert problem.forget is not None
    batch = only_batch(problem.forget)
    loss = F.cross_entropy(problem.model(batch.images), batch.labels, reduction="sum")
    wanted = torch.autograd.grad(loss, list(problem.model.parameters()))
    for score, gradient in zip(scores.values(), wanted, strict=True):
        assert torch.allclose(score, gradient.abs(), atol=1e-4)
    assert all(parameter.grad is None for parameter in problem.model.parameters())


# Label flip


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
    """One step: a tenth of the first layer, rising to all of the last; momentum and decay included."""
    unbounded = ["method.stop_loss=inf"] if method == "negative_gradient" else []
    stages = stages_of(
        quick(
            f"method={method}_partial", f"method.optimizer={optimizer}", "method.batch_size=20",
            *unbounded, "method.epochs=1", "method.weight_decay=0.1", "method.lr=0.01",
            "method.keep_first=0.1", "method.keep_last=1",
        )
    )  # fmt: skip
    before, after = original(stages), unlearned(stages)
    moved = [(before[f"{layer}.weight"] != after[f"{layer}.weight"]).double() for layer in (0, 2, 6, 8)]
    for number, (expected, layer) in enumerate(zip((0.1, 0.4, 0.7, 1.0), moved, strict=True)):
        spread = 4 * math.sqrt(expected * (1 - expected) / layer.numel())
        assert abs(layer.mean().item() - expected) <= spread + 1e-9, number


@pytest.mark.parametrize("method", ["label_flip", "negative_gradient"])
def test_a_partial_update_of_everything_is_the_whole_one(quick: Quick, method: str) -> None:
    options = ["method.batch_size=8", "method.epochs=2"]
    all_of_it = ["method.keep_first=1", "method.keep_last=0.9999999999"]  # no draw is above it
    plain = unlearned(stages_of(quick(f"method={method}", *options)))
    assert same(plain, unlearned(stages_of(quick(f"method={method}_partial", *options, *all_of_it))))


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
    assert spent(stages)["gradient_examples"] == 5 * rows


# Negative gradient, and NegGrad+


def test_negative_gradient_stops_at_the_mean_of_a_pass(quick: Quick) -> None:
    """In batches of 8, 8 and 4 rows: three losses and their weights."""
    stages = stages_of(
        quick(
            "method=negative_gradient", "training.epochs=30", "training.lr=0.05", "method.lr=0.02",
            "method.batch_size=8", "method.epochs=200", "method.momentum=0",
        )
    )  # fmt: skip
    problem, logged = problem_of(stages)
    stages.plan.method.unlearn(problem)
    stops = [point for point in logged if "stopped_at_step" in point]

    again, _ = problem_of(stages)
    assert again.forget is not None
    phase = Phase(again.model, again.forget, stages.plan.method, again.conditions, ascent)  # type: ignore[arg-type]
    losses: list[tuple[float, int]] = []
    means: list[float] = []
    for step in (step for epoch in range(200) for step in phase.steps(epoch)):
        losses.append((-step.loss.item(), len(step.batch.rows)))
        last = losses[-3:]
        means.append(sum(loss * rows for loss, rows in last) / sum(rows for _, rows in last))
        if len(last) == 3 and means[-1] >= math.log(10):
            break
    assert stops == [{"stopped_at_step": len(losses) - 1, "forget_loss": pytest.approx(means[-1])}]
    epochs = [point["epoch"] for point in logged if "epoch" in point]
    assert epochs == list(range(1, math.ceil(len(losses) / 3) + 1))  # the last one, too, was begun
    earlier = [loss for loss, _ in losses[:-1]]
    assert max(earlier) >= math.log(10), "a single batch had reached the bound before"


def ascent(logits: Tensor, batch: Batch) -> Tensor:
    return -cross_entropy(logits, batch)


def test_neggrad_plus_is_one_weighted_step(quick: Quick) -> None:
    sizes = [f"method.batch_size={FORGET}", "data.limit=20", "method.epochs=1"]
    stages = stages_of(
        quick("method=negative_gradient_plus", *sizes, *PLAIN, "method.clip=null", "method.lr=0.1")
    )
    a, b = problem_of(stages, budget=2 * FORGET)[0], problem_of(stages)[0]  # one step
    after = stages.plan.method.unlearn(a)
    assert b.forget is not None and b.retain is not None
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
    assert same(unlearned(plus), unlearned(stages_of(quick("method=finetune", *options))))
    assert spent(plus)["gradient_examples"] == 2 * RETAIN + 15 * FORGET + 8  # 46 batches: 8, 8, 4, …


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
        return original(stages), unlearned(stages)

    before, with_penalty = once(0.01)
    _, without = once(0)
    for name, value in before.items():
        assert torch.allclose(with_penalty[name], without[name] - 0.1 * 0.01 * value.sign(), atol=1e-7)


# Boundary shrink and boundary expand


@pytest.mark.parametrize("augmented", [[], AUGMENTED])
def test_boundary_labels_are_the_nearest_other_class(augmented: list[str], quick: Quick) -> None:
    options = ["method.batch_size=8", "training.epochs=20", "scenario=random"]
    stages = stages_of(quick("method=boundary_shrink", *options, *augmented))
    problem, _ = problem_of(stages)
    assert problem.forget is not None
    across = nearest_classes(problem, 0.1, 7)
    assert torch.equal(across.rows, problem.forget.rows)
    assert not (across.labels == problem.forget.labels).any()
    teacher = Teacher(problem.original(), problem.conditions)
    batch = only_batch(problem.forget)
    moved = stepped(teacher.model, batch, problem.forget.pixels, 0.1, False)
    best = teacher(moved).scatter(1, batch.labels[:, None], -torch.inf).argmax(1)
    assert torch.equal(best, across.labels)


def test_the_step_over_the_boundary_stays_within_the_pixels(quick: Quick) -> None:
    problem, _ = problem_of(stages_of(quick("method=boundary_shrink", "method.batch_size=8")))
    assert problem.forget is not None
    batch, pixels = only_batch(problem.forget), problem.forget.pixels
    teacher = Teacher(problem.original(), problem.conditions)
    moved = stepped(teacher.model, batch, pixels, 0.1, False) * pixels.std[0] + pixels.mean[0]
    still = batch.images * pixels.std[0] + pixels.mean[0]
    assert moved.min() >= -1e-6 and moved.max() <= 1 + 1e-6
    inside = (still > 0.1) & (still < 0.9)
    far = (moved - still)[inside].abs()
    still_there = far < 1e-6  # where the loss does not depend on the pixel at all
    assert (still_there | ((far - 0.1).abs() < 1e-6)).all() and still_there.float().mean() < 0.1
    loss = [
        F.cross_entropy(teacher(images), batch.labels)
        for images in (batch.images, (moved - pixels.mean[0]) / pixels.std[0])
    ]
    assert loss[1] > loss[0]


def test_boundary_shrink_in_a_small_budget_uses_the_rows_it_reached(quick: Quick) -> None:
    problem, _ = problem_of(stages_of(quick("method=boundary_shrink", "method.batch_size=8")), budget=16)
    assert len(nearest_classes(problem, 0.1, 8)) == 16


def test_boundary_expand_returns_the_original_shape_and_forgets(quick: Quick) -> None:
    options = ["method.batch_size=8", "method.lr=0.01", "training.epochs=30", "training.lr=0.05"]
    stages = stages_of(quick("method=boundary_expand", *options))
    before, after = original(stages), unlearned(stages)
    assert {name: value.shape for name, value in before.items()} == {
        name: value.shape for name, value in after.items()
    }
    problem, _ = problem_of(stages)
    assert problem.forget is not None
    error = 1 - accuracy(problem.model, problem.forget, problem.conditions)
    problem.model.load_state_dict(after)
    assert (1 - accuracy(problem.model, problem.forget, problem.conditions)) > error


def test_an_output_appended_and_removed_leaves_no_trace() -> None:
    for bias in (True, False):
        head = nn.Linear(5, 3, bias=bias)
        before, images = weights(head), torch.randn(2, 5)
        answers = head(images)
        widen(head, Streams(0, "test")("head"))
        assert head(images).shape == (2, 4) and torch.allclose(head(images)[:, :3], answers)
        narrow(head)
        assert same(before, weights(head)) and head.out_features == 3


# Reverse KL


def test_reverse_kl_without_strength_has_the_original_for_teacher(quick: Quick) -> None:
    stages = stages_of(quick("method=reverse_kl", "method.batch_size=8", *PLAIN, "method.strength=0"))
    before, after = original(stages), unlearned(stages)
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)


def test_reverse_kl_lowers_what_is_known_of_the_forgotten_rows(quick: Quick) -> None:
    less = ["training.epochs=5", "method.batch_size=8"]  # what is fully known can gain nothing
    stages = stages_of(quick("method=reverse_kl", *less, "method.epochs=20"))
    problem, _ = problem_of(stages)
    assert problem.forget is not None
    batch = only_batch(problem.forget)
    before = F.cross_entropy(problem.model(batch.images), batch.labels)
    after = F.cross_entropy(stages.plan.method.unlearn(problem)(batch.images), batch.labels)
    assert after > before + 0.3


def test_reverse_kl_spends_on_strengthening_too(quick: Quick) -> None:
    stages = stages_of(quick("method=reverse_kl", "method.batch_size=8"))
    assert spent(stages)["gradient_examples"] == (2 + 5) * FORGET


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
    before, after = original(stages), unlearned(stages)
    names = [name for name, _ in problem_of(stages)[0].model.named_parameters()]
    last = names[-4:]  # two layers of weight and bias
    assert [name for name in names if not torch.equal(before[name], after[name])] == last


def test_cf_k_of_all_layers_is_fine_tuning(quick: Quick) -> None:
    options = ["method.batch_size=8", "method.epochs=1"]
    every = stages_of(quick("method=catastrophic_k", *options, "method.layers=4"))
    assert same(unlearned(every), unlearned(stages_of(quick("method=finetune", *options))))


def test_eu_k_of_all_layers_is_retraining(quick: Quick) -> None:
    every = stages_of(quick("method=exact_k", "method.layers=4"))
    assert same(unlearned(every), unlearned(stages_of(quick("method=retrain"))))


@pytest.mark.parametrize("method", ["catastrophic_k", "exact_k"])
def test_more_layers_than_there_are_are_refused_before_pretraining(quick: Quick, method: str) -> None:
    plan = quick(f"method={method}", "method.layers=5")
    with pytest.raises(UserError, match=r"method\.layers=4 or less"):
        run(plan)
    assert not list(plan.root.glob("store/pretrain/*"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=salun", "method.share=1e-6", "method.batch_size=8"], "frees none of the"),
        (
            ["method=boundary_shrink", "scenario.classes=[0,1,2,3,4]", "method.batch_size=8"],
            "forget fewer than half",
        ),
        (
            ["method=boundary_expand", "scenario.classes=[0,1,2,3,4]", "method.batch_size=8"],
            "forget fewer than half",
        ),
    ],
)
def test_what_a_method_cannot_serve_is_refused_before_pretraining(
    quick: Quick, overrides: list[str], words: str
) -> None:
    plan = quick(*overrides)
    with pytest.raises(UserError, match=words):
        run(plan)
    assert not list(plan.root.glob("store/pretrain/*"))


def test_layers_are_those_that_own_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(2, 2))
    assert last_layers(model, 2) == [model[2], model[4]]


# UNSIR


def unsir(quick: Quick, *overrides: str) -> Stages:
    sizes = ["method.batch_size=8", "method.repair_batch_size=8"]
    return stages_of(quick("method=unsir", *sizes, *overrides))


def test_learning_noise_raises_the_loss_and_leaves_nothing_behind(quick: Quick) -> None:
    problem, _ = problem_of(unsir(quick, "training.epochs=30", "training.lr=0.05"))
    method = unsir(quick).plan.method
    before = weights(problem.model)
    start = replace(method, noise_steps=0).noise(problem, [3])  # type: ignore[type-var]
    noise = method.noise(problem, [3])  # type: ignore[attr-defined]
    threes = torch.full((32,), 3)
    loss = [F.cross_entropy(problem.model(images), threes) for images in (start, noise)]
    assert loss[1] > loss[0] + 1
    assert same(before, weights(problem.model))
    assert all(parameter.grad is None for parameter in problem.model.parameters())


def test_unsir_spends_on_noise_impairing_and_repair(quick: Quick) -> None:
    stages = unsir(quick, "method.retain_per_class=5", "method.noise_copies=2")
    assert stages.plan.method.access == Access.RETAIN
    impair, repair = 2 * 32 + 9 * 5, 9 * 5
    assert spent(stages)["gradient_examples"] == 25 * 32 + impair + repair


def test_noise_is_labelled_by_its_own_class_and_comes_as_it_was_learned(quick: Quick) -> None:
    problem, _ = problem_of(unsir(quick, "scenario.classes=[3,5]"))
    assert problem.retain is not None
    noise = torch.randn(4, 1, 8, 8)
    sample = some_of_each(problem.retain, 2, Streams(0, "test")("sample"))
    assert sample.labels.bincount().tolist() == [2, 2, 2, 0, 2, 0, 2, 2, 2, 2]
    mixed = with_noise(sample, noise, torch.tensor([3, 3, 5, 5]), copies=3)
    assert len(mixed) == 16 + 3 * 4
    seen = [
        (int(row), int(label), image)
        for batch in mixed.batches(5, Streams(0, "test")("order"))
        for row, label, image in zip(batch.rows, batch.labels, batch.images, strict=True)
    ]
    learned = [(row, label, image) for row, label, image in seen if row < 0]
    assert sorted(label for _, label, _ in learned) == [3] * 6 + [5] * 6
    assert all(torch.equal(image, noise[-1 - row]) for row, _, image in learned)
    real = {row: image for row, _, image in seen if row >= 0}
    plain = only_batch(sample)
    assert all(
        torch.equal(real[int(row)], image) for row, image in zip(plain.rows, plain.images, strict=True)
    )


def test_unsir_forgets_a_whole_class(quick: Quick) -> None:
    trained = ["training.epochs=30", "training.lr=0.05", "method.lr=0.01", "method.noise_copies=20"]
    stages = unsir(quick, *trained)
    problem, _ = problem_of(stages)
    forget = stages.dataset.train.only(stages.request.rows)
    assert (1 - accuracy(problem.model, forget, problem.conditions)) < 0.1
    model = stages.plan.method.unlearn(problem)
    assert (1 - accuracy(model, forget, problem.conditions)) > 0.5


# Numbers that make no sense


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method=bad_teacher method.retain_fraction=1.5", "method.retain_fraction=1.5"),
        ("method=bad_teacher method.temperature=0", "method.temperature=0"),
        ("method=dual_phase_ascent method.factor=-1", "method.factor=-1"),
        ("method=uniform_labels method.factor=nan", "method.factor=nan"),
        ("method=scrub method.kl_weight=-1", "method.kl_weight=-1"),
        ("method=scrub method.forget_batch_size=0", "method.forget_batch_size=0"),
        ("method=scrub method.rewind_error=2", "method.rewind_error=2"),
        ("method=salun method.share=0", "method.share=0"),
        ("method=negative_gradient_plus method.retain_weight=2", "method.retain_weight=2"),
        ("method=l1_sparse method.strength=-1", "method.strength=-1"),
        ("method=l1_sparse method.strength=3.5e38", "method.strength=3.5e+38"),
        ("method=l1_sparse method.free_epochs=11", "method.free_epochs=11"),
        ("method=boundary_shrink method.bound=0", "method.bound=0"),
        ("method=reverse_kl method.strength=inf", "method.strength=inf"),
        ("method=catastrophic_k method.layers=0", "method.layers=0"),
        ("method=exact_k method.layers=0", "method.layers=0"),
        ("method=unsir method.noise_copies=0", "method.noise_copies=0"),
        ("method=unsir method.repair_lr=-1", "method.repair_lr=-1"),
    ],
)
def test_senseless_numbers_are_refused(quick: Quick, override: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        quick(*override.split())
    assert words in str(refused.value)
