"""Methods that learn from a teacher: the divergence, bad teacher, two phases and SCRUB."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.base import accuracy
from methods.families.distillation import Teacher, divergence
from runner.plan import Plan
from tests.conftest import (
    FORGET,
    LEARNED,
    RETAIN,
    Stages,
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
PLAIN = ["method.momentum=0", "method.weight_decay=0", "method.optimizer=sgd"]


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
    problem = problem_of(stages_of(quick()))
    teacher = Teacher(problem.original(), problem.conditions)
    assert not teacher(torch.randn(4, 1, 8, 8)).requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert problem.conditions.meter.cost.forward_examples == 4


# Bad teacher


def test_bad_teacher_comes_closer_to_its_teachers(quick: Quick) -> None:
    stages = stages_of(
        quick("method=bad_teacher", "method.batch_size=8", "method.epochs=20", "method.lr=0.01")
    )
    problem = problem_of(stages)
    forget, retain = only_batch(problem.forget).images, only_batch(problem.retain).images
    incompetent = Teacher(problem.fresh(problem.conditions.streams), problem.conditions)(forget)
    competent = Teacher(problem.original(), problem.conditions)(retain)
    before = Teacher(problem.original(), problem.conditions)(forget)
    student = Teacher(stages.plan.method.unlearn(problem), problem.conditions)
    assert divergence(incompetent, student(forget), 1) < divergence(incompetent, before, 1) / 2
    assert divergence(competent, student(retain), 1) < 0.2


def test_bad_teacher_sees_the_forgotten_rows_and_its_share_of_the_rest(quick: Quick) -> None:
    stages = stages_of(quick("method=bad_teacher", "method.batch_size=8"))
    assert cost_of(stages)["gradient_examples"] == FORGET + round(0.3 * RETAIN)


def test_bad_teacher_reads_no_label(quick: Quick) -> None:
    stages = stages_of(quick("method=bad_teacher", "method.batch_size=8"))
    a, b = problem_of(stages), problem_of(stages)
    for part in (b.forget, b.retain):
        part.labels.zero_()
    assert same(state_of(stages.plan.method.unlearn(a)), state_of(stages.plan.method.unlearn(b)))


# SCRUB


def scrub(quick: Quick, *overrides: str) -> Stages:
    sizes = ["method.batch_size=8", "method.forget_batch_size=8"]
    return stages_of(quick("method=scrub", *sizes, "method.lr=0.01", "method.epochs=4", *overrides))


def test_scrub_moves_the_student_and_never_the_teacher(quick: Quick) -> None:
    stages = scrub(quick)
    before = original_of(stages)
    problem = problem_of(stages)
    teachers: list[nn.Module] = []
    load = problem.original

    def remembered() -> nn.Module:
        teachers.append(load())
        return teachers[-1]

    problem.original = remembered
    student = stages.plan.method.unlearn(problem)
    assert len(teachers) == 1 and same(state_of(teachers[0]), before)
    assert not any(torch.equal(before[name], value) for name, value in state_of(student).items())


def test_scrub_goes_away_on_the_forgotten_rows_and_stays_on_the_rest(quick: Quick) -> None:
    stages = scrub(
        quick, *LEARNED, "method.ascent_epochs=3",
        "method.kl_weight=0.5", "method.lr=0.003",
    )  # fmt: skip
    problem = problem_of(stages)
    teacher = Teacher(problem.original(), problem.conditions)
    student = Teacher(stages.plan.method.unlearn(problem), problem.conditions)
    away, near = (
        divergence(teacher(images), student(images), 1)
        for images in (only_batch(problem.forget).images, only_batch(problem.retain).images)
    )
    assert away > 10 * near


def test_scrub_shows_the_divergence_that_it_climbs(quick: Quick) -> None:
    """It is no less than 0, as a divergence is, and grows."""
    stages, logged = scrub(quick, *LEARNED, "method.ascent_epochs=4"), list[dict[str, float]]()
    stages.plan.method.unlearn(problem_of(stages, log=logged))
    shown = [point["forget_loss"] for point in logged if "forget_loss" in point]
    assert len(shown) == 4 and -1e-6 < shown[0] < shown[-1]


def test_scrub_climbs_in_its_first_epochs_alone(quick: Quick) -> None:
    stages = scrub(quick, "method.ascent_epochs=2")
    assert cost_of(stages)["gradient_examples"] == 4 * RETAIN + 2 * FORGET


def test_rewinding_keeps_the_epoch_whose_error_is_closest(quick: Quick) -> None:
    trained = [*LEARNED, "method.ascent_epochs=3"]
    method = scrub(quick, *trained).plan.method
    problem = problem_of(scrub(quick, *trained))
    epochs = []
    for student in method.students(problem):  # type: ignore[attr-defined]
        epochs.append(((1 - accuracy(student, problem.forget, problem.conditions)), state_of(student)))
    errors = [error for error, _ in epochs]
    assert len(set(errors)) > 1
    for wanted in set(errors):
        logged: list[dict[str, float]] = []
        again = problem_of(scrub(quick, *trained), log=logged)
        kept = replace(method, rewind_error=wanted).unlearn(again)  # type: ignore[type-var]
        latest = max(epoch for epoch, error in enumerate(errors) if error == wanted)
        assert same(state_of(kept), epochs[latest][1])
        assert [point["forget_error"] for point in logged if "forget_error" in point] == errors


def test_of_two_equally_close_epochs_the_later_one_is_kept(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errors 0.6 and 0.2 are equally far from 0.4, and rounding says that the first is closer."""
    accuracies = iter([0.4, 0.8])
    assert abs(1 - 0.8 - 0.4) > abs(1 - 0.4 - 0.4)
    monkeypatch.setattr("methods.scrub.accuracy", lambda *given: next(accuracies))
    rewound = scrub(quick, "method.epochs=2", "method.rewind_error=0.4")
    last = scrub(quick, "method.epochs=2")
    assert same(unlearned_of(rewound), unlearned_of(last))


# Reverse KL


def test_reverse_kl_without_strength_has_the_original_for_teacher(quick: Quick) -> None:
    stages = stages_of(quick("method=reverse_kl", "method.batch_size=8", *PLAIN, "method.strength=0"))
    before, after = original_of(stages), unlearned_of(stages)
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)


def test_reverse_kl_lowers_what_is_known_of_the_forgotten_rows(quick: Quick) -> None:
    less = ["training.epochs=5", "method.batch_size=8"]  # what is fully known can gain nothing
    stages = stages_of(quick("method=reverse_kl", *less, "method.epochs=20"))
    problem = problem_of(stages)
    batch = only_batch(problem.forget)
    before = F.cross_entropy(problem.model(batch.images), batch.labels)
    after = F.cross_entropy(stages.plan.method.unlearn(problem)(batch.images), batch.labels)
    assert after > before + 0.3


def test_reverse_kl_spends_on_strengthening_too(quick: Quick) -> None:
    stages = stages_of(quick("method=reverse_kl", "method.batch_size=8"))
    assert cost_of(stages)["gradient_examples"] == (2 + 5) * FORGET
