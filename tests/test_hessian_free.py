"""Hessian-free: a row's vector is the derivative of the training by it, and forgetting adds it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from data.errors import UserError
from data.split import Batch, Pixels, Split
from data.streams import Streams
from methods.recording.files import Damaged
from methods.recording.leave_one_out import LeaveOneOut, change_without
from methods.recording.recorder import RecordedTraining
from methods.training.descent import Optimizer, Recipe, Schedule, Step
from methods.training.loop import Phase
from methods.training.memory import available_memory
from methods.weights.certificate import deviation_for
from runner.plan import Plan
from tests.conftest import (
    close,
    conditions_of,
    original_of,
    plan_of,
    result_of,
    stages_of,
    unlearned_of,
)
from tests.recording import model_of, training_of, weights

Quick = Callable[..., Plan]

RECORD = ["recorder=[leave_one_out]", "method=hessian_free"]


def recorder(*overrides: str) -> LeaveOneOut:
    found = plan_of(*RECORD, *overrides).recorders["leave_one_out"]
    assert isinstance(found, LeaveOneOut)
    return found


def recipe(**changes: object) -> Recipe:
    return replace(plan_of().recipe, **{"epochs": 3, "batch_size": 4, "lr": 0.2, **changes})  # type: ignore[arg-type]


def rows(count: int) -> Split:
    """Return random images of 2×2 pixels, and labels of three classes."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, 2, 2), generator=rng, dtype=torch.uint8)
    labels = torch.randint(3, (count,), generator=rng)
    return Split(images, labels, torch.arange(count), Pixels((0.5,), (0.25,)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def steps(model: nn.Module, split: Split, descent: Recipe, shares: Tensor) -> Iterator[Step]:
    """Yield the steps of a training in which row i has the weight shares[i] in each batch's loss."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return (F.cross_entropy(logits, batch.labels, reduction="none") * shares[batch.rows]).mean()

    phase = Phase(model, split, descent, conditions_of(plan_of()), loss)
    for epoch in range(descent.epochs):
        yield from phase.steps(epoch)


def trained(model: nn.Module, split: Split, descent: Recipe, shares: Tensor) -> Tensor:
    """Return the weights (M,) after a training with these shares."""
    for _ in steps(model, split, descent, shares):
        pass
    return parameters_to_vector(model.parameters()).detach()


def recorded(folder: Path, model: nn.Module, split: Split, descent: Recipe) -> Tensor:
    """Train on all rows, record every row's vector, and return the weights."""
    training = RecordedTraining(model, split, descent, Streams(0, "record"), folder)
    whole = steps(model, split, descent, torch.ones(len(split)))
    for _ in recorder().watch(whole, training):
        pass
    return parameters_to_vector(model.parameters()).detach()


LINEAR_IN_THE_GRADIENT = [
    {"momentum": 0.0, "weight_decay": 0.0},
    {"momentum": 0.9, "weight_decay": 0.0, "lr": 0.05},
    {"momentum": 0.5, "weight_decay": 0.1, "schedule": Schedule.cosine, "warmup": 1.0},
]


@pytest.mark.parametrize("changes", LINEAR_IN_THE_GRADIENT)
def test_a_vector_is_the_derivative_of_the_training_by_the_rows_share(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """a_i = −∂θ_T/∂s_i at s = 1, by a central difference, whose error is a third of h² in order."""
    split, descent, h = rows(10), recipe(**changes), 0.05
    recorded(tmp_path, network(), split, descent)
    for row in (0, 7):
        ends = []
        for sign in (-h, h):
            shares = torch.ones(10)
            shares[row] += sign
            ends.append(trained(network(), split, descent, shares))
        found = change_without(tmp_path, torch.tensor([row]))
        assert close(found, (ends[0] - ends[1]) / (2 * h), rel=5e-3)


def test_the_sum_is_leave_out_training_of_a_linear_model_to_second_order(tmp_path: Path) -> None:
    """Full batches, to the optimum: half as many rows of one kind leave a quarter of the error."""
    split = rows(40)
    alike = torch.cat([torch.zeros(8, dtype=torch.int64), torch.arange(8, 40)])
    split = replace(split, images=split.images[alike], labels=split.labels[alike])
    descent = recipe(epochs=150, batch_size=40, momentum=0.0, weight_decay=0.05)
    whole = recorded(tmp_path, linear(), split, descent)
    errors = []
    for out in (4, 2, 1):
        shares = torch.ones(40)
        shares[:out] = 0
        exact = trained(linear(), split, descent, shares) - whole
        found = change_without(tmp_path, torch.arange(out))
        errors.append(float((found - exact).norm() / exact.norm()))
    # the relative error is proportional to the number of rows, and the error to its square
    assert errors[2] < 0.06
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.05)
    assert errors[2] == pytest.approx(errors[1] / 2, rel=0.05)


def dense(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the Hessian (M, M) of a linear model's mean loss, and the gradient (B, M) of each row."""
    flat = parameters_to_vector(model.parameters()).detach()
    x = batch.images.flatten(1)

    def losses(vector: Tensor) -> Tensor:
        logits = x @ vector[:12].view(3, 4).T + vector[12:]
        return F.cross_entropy(logits, batch.labels, reduction="none")

    hessian = torch.autograd.functional.hessian(lambda v: losses(v).mean(), flat)
    return hessian, torch.autograd.functional.jacobian(losses, flat)


def adam_by_hand(steps: Iterator[Step], descent: Recipe, row: int) -> Tensor:
    """Return a_i with dense Hessians, the moments of Adam's own steps and the norms of its gradients."""
    a, u, square = torch.zeros(15), torch.zeros(15), torch.zeros(15)
    decoupled = descent.optimizer is Optimizer.adamw
    for step in steps:
        hessian, each = dense(step.model, step.batch)
        theta = parameters_to_vector(step.model.parameters()).detach()
        change = hessian @ a
        if row in step.batch.rows:
            change = change - each[step.batch.rows.tolist().index(row)] / len(step.batch.rows)
        gradient = each.mean(0)
        assert descent.clip is not None
        scale = min(1.0, descent.clip / float(gradient.norm()))
        change, gradient = scale * change, scale * gradient
        if not decoupled:
            change, gradient = change + descent.weight_decay * a, gradient + descent.weight_decay * theta
        t = step.number + 1
        square = 0.999 * square + 0.001 * gradient**2
        u = 0.9 * u + 0.1 * change
        if decoupled:
            a = a - step.lr * descent.weight_decay * a
        root = (square / (1 - 0.999**t)).sqrt() + 1e-8
        a = a - step.lr * u / (1 - 0.9**t) / root
    return a


@pytest.mark.parametrize("optimizer", [Optimizer.adam, Optimizer.adamw])
def test_adams_moments_and_the_clipping_are_held(tmp_path: Path, optimizer: Optimizer) -> None:
    split = rows(10)
    descent = recipe(optimizer=optimizer, lr=0.05, weight_decay=0.3, clip=0.2)
    recorded(tmp_path, linear(), split, descent)
    whole = steps(linear(), split, descent, torch.ones(10))
    assert close(change_without(tmp_path, torch.tensor([4])), adam_by_hand(whole, descent, 4), rel=1e-3)


def test_forgetting_adds_the_vectors_of_the_forgotten_rows(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD, "training.epochs=2", "recorder.leave_one_out.classes=[3]"))
    unlearned = stages.unlearn(stages.pretrain())
    folder = stages.record("leave_one_out").path
    change = change_without(folder, stages.request.rows)
    single = sum(change_without(folder, row[None]) for row in stages.request.rows)
    assert isinstance(single, Tensor) and close(change, single) and change.norm() > 0
    moved = weights(stages, unlearned) - weights(stages, stages.pretrain())
    assert close(moved, change, rel=1e-4)


def test_a_certificate_is_logged_printed_and_in_the_weights(
    quick: Quick, caplog: pytest.LogCaptureFixture
) -> None:
    options = [*RECORD, "recorder.leave_one_out.classes=[3]"]
    plain = unlearned_of(stages_of(quick(*options)))
    plan = quick(*options, "method.error=0.01", "method.epsilon=3")
    noisy, costs = unlearned_of(stages_of(plan)), result_of(plan).costs["unlearned"]
    assert (costs["epsilon"], costs["delta"]) == (3, 0.00001)
    assert costs["noise"] == pytest.approx(deviation_for(3, 0.00001, 0.01))
    difference = torch.cat([(noisy[name] - plain[name]).flatten() for name in plain])
    error = costs["noise"] / math.sqrt(2 * len(difference))
    assert float(difference.std()) == pytest.approx(costs["noise"], abs=4 * error)
    (said,) = [each for each in caplog.messages if each.startswith("certificate: (ε=3, δ=1e-05)")]
    assert "if the sum is within 0.01 of their result" in said
    assert "epsilon" not in result_of(quick(*options)).costs["unlearned"]


def test_vectors_that_do_not_fit_into_memory_are_refused_before_training(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 rows and two vectors of each, as there is momentum: half of that leaves 5 classes of 20."""
    plan = quick(*RECORD)
    training = training_of(stages_of(plan), plan.root)
    needed = 2 * 4 * 200 * training.parameters
    monkeypatch.setattr(
        "methods.recording.leave_one_out.available_memory", lambda device: needed / 2 + 1000
    )
    with pytest.raises(UserError, match=r"would hold .* in memory, but .* are free: set .*at most 5 cl"):
        stages_of(plan).pretrain()
    assert not list(plan.root.glob("store/pretrain/[!.]*"))
    stages_of(quick(*RECORD, "recorder.leave_one_out.classes=[0,1,2,3,4]")).pretrain()


def test_some_memory_is_free() -> None:
    assert available_memory(torch.device("cpu")) > 2**20


def test_without_momentum_half_the_memory_is_enough(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = quick(*RECORD, "training.momentum=0")
    training = training_of(stages_of(plan), plan.root)
    monkeypatch.setattr(
        "methods.recording.leave_one_out.available_memory", lambda device: 4 * 200 * training.parameters
    )
    recorder().check(training, "recorder.leave_one_out")


def test_an_altered_vector_is_found(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD, "recorder.leave_one_out.classes=[3]"))
    stages.pretrain()
    folder = stages.record("leave_one_out").path
    path = folder / "vectors.entries"
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(Damaged):
        change_without(folder, stages.request.rows[:1])


def test_the_summary_says_what_a_step_costs(quick: Quick) -> None:
    told: list[str] = []
    stages = stages_of(quick(*RECORD, "recorder.leave_one_out.classes=[3]"), told.append)
    original = stages.pretrain()
    assert told[0].endswith("20 Hessian-vector products in each of 4 steps")
    size = 4 * 20 * sum(p.numel() for p in model_of(stages, original).parameters())
    assert (stages.record("leave_one_out").path / "vectors.entries").stat().st_size == size
    assert original_of(stages)
