"""Methods that make new inputs or outputs: boundary shrink, boundary expand and UNSIR."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data.streams import Streams
from methods.base import Access, accuracy
from methods.boundary_expand import narrow, widen
from methods.boundary_shrink import nearest_classes, stepped
from methods.families.distillation import Teacher
from methods.unsir import some_of_each, with_noise
from runner.plan import Plan
from tests.conftest import (
    LEARNED,
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


AUGMENTED = ["dataset.crop=1", "dataset.flip=true"]


# Boundary shrink and boundary expand


@pytest.mark.parametrize("augmented", [[], AUGMENTED])
def test_boundary_labels_are_the_nearest_other_class(augmented: list[str], quick: Quick) -> None:
    options = ["method.batch_size=8", "training.epochs=20", "scenario=random"]
    stages = stages_of(quick("method=boundary_shrink", *options, *augmented))
    problem = problem_of(stages)
    across = nearest_classes(problem, 0.1, 7)
    assert torch.equal(across.rows, problem.forget.rows)
    assert not (across.labels == problem.forget.labels).any()
    teacher = Teacher(problem.original(), problem.conditions)
    batch = only_batch(problem.forget)
    moved = stepped(teacher.model, batch, problem.forget.pixels, 0.1, False)
    best = teacher(moved).scatter(1, batch.labels[:, None], -torch.inf).argmax(1)
    assert torch.equal(best, across.labels)


def test_the_step_over_the_boundary_stays_within_the_pixels(quick: Quick) -> None:
    problem = problem_of(stages_of(quick("method=boundary_shrink", "method.batch_size=8")))
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
    problem = problem_of(stages_of(quick("method=boundary_shrink", "method.batch_size=8")), budget=16)
    assert len(nearest_classes(problem, 0.1, 8)) == 16


def test_boundary_expand_returns_the_original_shape_and_forgets(quick: Quick) -> None:
    options = ["method.batch_size=8", "method.lr=0.01", *LEARNED]
    stages = stages_of(quick("method=boundary_expand", *options))
    before, after = original_of(stages), unlearned_of(stages)
    assert {name: value.shape for name, value in before.items()} == {
        name: value.shape for name, value in after.items()
    }
    problem = problem_of(stages)
    error = 1 - accuracy(problem.model, problem.forget, problem.conditions)
    problem.model.load_state_dict(after)
    assert (1 - accuracy(problem.model, problem.forget, problem.conditions)) > error


def test_an_output_appended_and_removed_leaves_no_trace() -> None:
    for bias in (True, False):
        head = nn.Linear(5, 3, bias=bias)
        before, images = state_of(head), torch.randn(2, 5)
        answers = head(images)
        widen(head, Streams(0, "test")("head"))
        assert head(images).shape == (2, 4) and torch.allclose(head(images)[:, :3], answers)
        narrow(head)
        assert same(before, state_of(head)) and head.out_features == 3


# UNSIR


def unsir(quick: Quick, *overrides: str) -> Stages:
    sizes = ["method.batch_size=8", "method.repair_batch_size=8"]
    return stages_of(quick("method=unsir", *sizes, *overrides))


def test_learning_noise_raises_the_loss_and_leaves_nothing_behind(quick: Quick) -> None:
    problem = problem_of(unsir(quick, *LEARNED))
    method = unsir(quick).plan.method
    before = state_of(problem.model)
    start = replace(method, noise_steps=0).noise(problem, [3])  # type: ignore[type-var]
    noise = method.noise(problem, [3])  # type: ignore[attr-defined]
    threes = torch.full((32,), 3)
    loss = [F.cross_entropy(problem.model(images), threes) for images in (start, noise)]
    assert loss[1] > loss[0] + 1
    assert same(before, state_of(problem.model))
    assert all(parameter.grad is None for parameter in problem.model.parameters())


def test_unsir_spends_on_noise_impairing_and_repair(quick: Quick) -> None:
    stages = unsir(quick, "method.retain_per_class=5", "method.noise_copies=2")
    assert stages.plan.method.access == Access.RETAIN
    impair, repair = 2 * 32 + 9 * 5, 9 * 5
    assert cost_of(stages)["gradient_examples"] == 25 * 32 + impair + repair


def test_noise_is_labelled_by_its_own_class_and_comes_as_it_was_learned(quick: Quick) -> None:
    problem = problem_of(unsir(quick, "scenario.classes=[3,5]"))
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


def test_unsir_learns_noise_for_a_class_that_is_named(quick: Quick) -> None:
    default, named = unsir(quick), unsir(quick, "method.noise_classes=[3]")
    models = [stages.plan.method.unlearn(problem_of(stages)) for stages in (default, named)]
    assert same(*map(state_of, models))
    part = ["dataset=digits_parity", "scenario=part_of_class", "scenario.classes=[3]"]
    sizes = ["method.noise_classes=[odd]", "method.retain_per_class=5", "method.noise_copies=2"]
    stages = unsir(quick, *part, *sizes)
    assert stages.plan.method.noise_classes == [1]  # type: ignore[attr-defined]
    impair, repair = 2 * 32 + 2 * 5, 2 * 5
    assert cost_of(stages)["gradient_examples"] == 25 * 32 + impair + repair


def test_unsir_forgets_a_whole_class(quick: Quick) -> None:
    trained = [*LEARNED, "method.lr=0.01", "method.noise_copies=20"]
    stages = unsir(quick, *trained)
    problem = problem_of(stages)
    forget = stages.dataset.train.only(stages.request.rows)
    assert (1 - accuracy(problem.model, forget, problem.conditions)) < 0.1
    model = stages.plan.method.unlearn(problem)
    assert (1 - accuracy(model, forget, problem.conditions)) > 0.5
