"""Trainings that begin at a scored model, and the looks at them."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.training.cost import Meter
from methods.training.descent import Schedule
from methods.training.loop import Conditions, fit
from metrics.predictions import Predictions, predict
from runner.plan import Plan, identities
from runner.stages import curve as curve_function
from runner.stages.curve import Looks
from runner.store import Artefact, fingerprint
from tests.conftest import LEARNED, Stages, conditions_of, plan_of, stages_of

Quick = Callable[..., Plan]

# In the quick runs a pass over all 200 rows has 4 batches, the last of 8 rows, and one over the 180
# retained rows has 3.
SHORT = ["evaluation.curve_batches=10", "evaluation.curve_look=5"]


def made_now(stages: Stages, stage: str) -> Artefact:
    """Return the artefact of a stage that was used last."""
    return [made for made in stages.used if made.stage == stage][-1]


def accuracy(predictions: Predictions, part: str) -> float:
    right = predictions.logits[part].argmax(1) == predictions.labels[part]
    return right.double().mean().item()


def looks(stages: Stages, kind: str, made: Artefact) -> list[tuple[int, float, float]]:
    """Return the looks without their seconds."""
    return [(point.batches, point.forget, point.retain) for point in stages.curve(kind, made)]


@pytest.mark.parametrize("kind", ["relearn", "recover"])
def test_a_curve_begins_at_the_accuracies_of_the_stored_predictions(quick: Quick, kind: str) -> None:
    """So the original is at its own accuracy at once."""
    stages = stages_of(quick(*LEARNED, *SHORT))
    original = stages.pretrain()
    predictions = stages.predictions(original)
    parts = accuracy(predictions, "test_forget"), accuracy(predictions, "train_retain")
    assert min(parts) > 0.5 and looks(stages, kind, original)[0] == (0, *parts)


def test_a_request_that_names_no_kind_is_probed_by_the_forgotten_rows_themselves(quick: Quick) -> None:
    stages = stages_of(quick(*LEARNED, *SHORT, "scenario=random", "scenario.count=30"))
    original = stages.pretrain()
    found = looks(stages, "relearn", original)[0]
    assert found[1] == accuracy(stages.predictions(original), "train_forget")


def test_a_probe_has_at_most_256_forgotten_and_2048_retained_rows(quick: Quick) -> None:
    """All digits: 1,078 training rows, of which 500 are forgotten."""
    plan = quick(
        "data.limit=null", "scenario=random", "scenario.count=500", "evaluation.curve_batches=1"
    )
    stages = stages_of(plan)
    stages.curve("relearn", stages.pretrain())
    rows = len(stages.dataset.train)
    # a look before the batch and one after it
    assert made_now(stages, "relearn").read("cost.json")["forward_examples"] == 2 * (256 + rows - 500)


def test_a_curve_is_an_ordinary_training_at_a_constant_rate(quick: Quick) -> None:
    """Two passes over all rows by the original's recipe, without its schedule and its warm-up."""
    recipe = ["training.schedule=cosine", "training.epochs=2", "training.warmup=1", "training.lr=0.05"]
    stages = stages_of(quick(*recipe, "evaluation.curve_batches=8"))
    original = stages.pretrain()
    last = looks(stages, "relearn", original)[-1]

    streams, meter = stages.streams("relearn"), Meter(torch.device("cpu"))
    conditions = Conditions(streams, meter, lambda values: None, stages.plan.recipe)
    model = stages.problem(stages.plan.method, original, conditions).model
    constant = replace(stages.plan.recipe, epochs=2, schedule=Schedule.constant, warmup=0.0)
    fit(model, stages.dataset.train, constant, conditions)
    probes = (
        stages.dataset.test.only(stages.request.test),
        stages.dataset.train.without(stages.request.rows),
    )
    right = [predict(model, rows, 1024, False).argmax(1) == rows.labels for rows in probes]
    assert last == (8, *(each.double().mean().item() for each in right))


def test_looks_change_nothing(quick: Quick) -> None:
    every, seldom = (
        stages_of(quick(*LEARNED, "evaluation.curve_batches=12", f"evaluation.curve_look={look}"))
        for look in (1, 4)
    )
    often = looks(every, "relearn", every.pretrain())
    assert [batches for batches, _, _ in often] == list(range(13))
    assert looks(seldom, "relearn", seldom.pretrain()) == often[::4]


@pytest.mark.parametrize(
    ("kind", "batches", "rows"),
    # 4 batches a pass: 2 passes and 2 batches; 3 batches a pass: 3 passes and 1 batch
    [("relearn", 10, 2 * 200 + 2 * 64), ("recover", 10, 3 * 180 + 64), ("recover", 3, 180)],
)
def test_a_budget_of_batches_is_kept(quick: Quick, kind: str, batches: int, rows: int) -> None:
    stages = stages_of(quick("evaluation.curve_look=4", f"evaluation.curve_batches={batches}"))
    points = stages.curve(kind, stages.pretrain())
    assert [point.batches for point in points] == [*range(0, batches, 4), batches]
    assert made_now(stages, kind).read("cost.json")["gradient_examples"] == rows


@pytest.mark.parametrize(("scenario", "recover"), [("whole_class", 3), ("relabel", 4)])
def test_an_epoch_has_the_batches_of_its_rows(quick: Quick, scenario: str, recover: int) -> None:
    stages = stages_of(quick(f"scenario={scenario}"))
    assert stages.batches_per_epoch("relearn") == 4
    assert stages.batches_per_epoch("recover") == recover


def test_a_retrained_model_relearns_the_class_and_never_recovers_it(quick: Quick) -> None:
    plan = quick("method=retrain", *LEARNED, "evaluation.curve_batches=120", "evaluation.curve_look=40")
    stages = stages_of(plan)
    retrained = stages.unlearn(stages.pretrain())
    relearned, recovered = (looks(stages, kind, retrained) for kind in ("relearn", "recover"))
    assert relearned[0][1] == 0 and max(forget for _, forget, _ in relearned) > 0.5
    assert all(forget == 0 for _, forget, _ in recovered)


def test_recovery_sees_no_forgotten_row_and_relearning_sees_them_all(quick: Quick) -> None:
    """With other labels for the forgotten rows, one stays and the other changes."""
    found = []
    for poison in (None, 5):
        stages = stages_of(quick(*LEARNED, *SHORT, f"paths.root={quick().root}/{poison}"))
        original = stages.pretrain()
        if poison is not None:
            labels = stages.dataset.train.labels
            labels[torch.isin(stages.dataset.train.rows, stages.request.rows)] = poison
        found.append([looks(stages, kind, original) for kind in ("recover", "relearn")])
    (recovered, relearned), (recovered_too, relearned_wrongly) = found
    assert recovered == recovered_too and relearned != relearned_wrongly


def test_relearning_uses_the_labels_before_a_request_to_relabel(quick: Quick) -> None:
    plan = quick(*LEARNED, "scenario=relabel", "evaluation.curve_batches=40", "evaluation.curve_look=40")
    stages = stages_of(plan)
    original = stages.pretrain()
    assert looks(stages, "relearn", original)[-1][1] > 0.5 > looks(stages, "recover", original)[-1][1]


def test_a_stored_curve_is_read_and_not_trained_again(quick: Quick) -> None:
    """Another training would take other seconds."""
    stages = stages_of(quick(*SHORT))
    points = stages.curve("relearn", stages.pretrain())
    assert made_now(stages, "relearn").read("curves.json") == [vars(point) for point in points]
    again = stages_of(quick(*SHORT))
    assert again.curve("relearn", again.pretrain()) == points


def test_seconds_exclude_the_looks(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*arguments: Any) -> Tensor:
        time.sleep(0.1)
        return predict(*arguments)

    monkeypatch.setitem(curve_function.__globals__, "predict", slowly)
    stages = stages_of(quick("evaluation.curve_batches=10", "evaluation.curve_look=1"))
    points = stages.curve("relearn", stages.pretrain())
    seconds = [point.seconds for point in points]
    assert seconds == sorted(seconds) and seconds[0] < 0.1
    # 11 looks at two probes take 2.2 seconds and more
    assert 0 < seconds[-1] < 1.1 and made_now(stages, "relearn").read("cost.json")["seconds"] < 1.1


def test_a_training_that_diverges_ends_the_curve(quick: Quick) -> None:
    said: list[str] = []
    plan = quick("training.epochs=0", "training.lr=1e6", "evaluation=quick", "evaluation.curve_look=1")
    stages = stages_of(plan, said.append)
    points = stages.curve("relearn", stages.pretrain())
    assert 1 <= len(points) < 20 and points[0].batches == 0
    (message,) = said
    assert message.startswith("relearn: the ") and message.endswith(
        f"; the curve ends at batch {points[-1].batches + 1}"
    )


def test_an_ensemble_is_trained_as_one_module(quick: Quick) -> None:
    shape = ["method=sisa", "method.shards=2", "method.slices=1", "training.batch_size=10"]
    plan = quick(*shape, "training.epochs=3", "training.lr=0.05", "evaluation.curve_batches=60")
    stages = stages_of(plan)
    ensemble = stages.unlearn(stages.pretrain())
    first, *_, last = stages.curve("relearn", ensemble, plan.method)
    assert first.retain == accuracy(stages.predictions(ensemble, plan.method), "train_retain")
    assert last.batches == 60 and last.retain > first.retain + 0.1


def test_a_look_leaves_a_model_in_its_mode(quick: Quick) -> None:
    plan = quick()
    stages = stages_of(plan)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout())
    looks = Looks(plan, model, (stages.dataset.test,) * 2, conditions_of(plan))
    with looks.conditions.meter:
        for training in (True, False):
            model.train(training)
            looks.look()
            assert all(module.training is training for module in model.modules())
    assert looks.points[0].retain == looks.points[1].retain  # no look drops a feature


@pytest.mark.parametrize(
    "override",
    ["evaluation.curve_batches=11", "evaluation.curve_look=2", "training.batch_size=32", "seed=1"],
)
def test_what_decides_a_curve_is_in_its_key(override: str) -> None:
    assert key_of(plan_of(override), "relearn") != key_of(plan_of(), "relearn")


def key_of(plan: Plan, stage: str) -> str:
    """Return the key of the curve of weights whose checksum is all zeros."""
    return fingerprint(identities.curve(plan, stage, "0" * 64, plan.recipe, {"forget": 1}))


@pytest.mark.parametrize(
    ("stage", "key"), [("relearn", "830ba7fa4f5512ca"), ("recover", "4cd96f427ca97cc7")]
)
def test_the_key_changes_on_purpose_only(stage: str, key: str) -> None:
    """If it changes, raise the version of the stage, and then change it here."""
    assert key_of(plan_of(), stage) == key
