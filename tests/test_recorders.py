"""Recorders: watching changes nothing, and a record serves only the rows that it tracks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.errors import UserError
from methods.recording.batch_updates import UpdateRecord
from runner.pipeline import run
from runner.plan import Plan
from runner.stages.models import MODEL
from runner.tracking import Tracker
from tests.conftest import options, plan_of, stages_of
from tests.recording import RECORD, weights

Quick = Callable[..., Plan]


@pytest.mark.parametrize("recorder", options("recorder"))
def test_watching_changes_no_bit(quick: Quick, recorder: str, tmp_path: Path) -> None:
    plain = stages_of(quick("training.epochs=2")).pretrain()
    watched = quick(f"recorder=[{recorder}]", "training.epochs=2", f"paths.root={tmp_path / 'w'}")
    assert stages_of(watched).pretrain().checksum(MODEL) == plain.checksum(MODEL)


class Epochs(Tracker):
    """Counts the epochs of pretraining that are reported."""

    def __init__(self) -> None:
        self.count = 0

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        self.count += stage == "pretrain"


def test_several_recorders_watch_one_training(quick: Quick) -> None:
    two = quick(*RECORD)
    (recorder,) = two.recorders.values()
    two = replace(two, recorders={"a": recorder, "b": replace(recorder, classes=[3])})
    tracker = Epochs()
    stages = stages_of(two, tracker=tracker)
    original = stages.pretrain()
    assert tracker.count == 2, "two epochs, once each"
    a, b = (UpdateRecord.open(stages.record(name).path) for name in ("a", "b"))
    everything = torch.ones(len(a.rows), dtype=torch.bool)
    assert torch.equal(a.total(a.hit(stages.request.rows)), b.total(b.hit(stages.request.rows)))
    assert torch.allclose(weights(stages, original) - a.total(everything), weights(stages), atol=1e-6)


def test_a_record_can_be_made_after_the_original_and_belongs_to_it(quick: Quick) -> None:
    before = stages_of(quick("training.epochs=2")).pretrain()
    stages = stages_of(quick(*RECORD))
    assert stages.pretrain().checksum(MODEL) == before.checksum(MODEL)
    assert sum(artefact.stage == "pretrain" for artefact in stages.store.artefacts()) == 1


def test_a_record_with_other_threads_than_the_originals_is_refused_before_training(quick: Quick) -> None:
    stages_of(quick("training.epochs=2")).pretrain()
    stages = stages_of(quick(*RECORD, "threads=2"))
    with pytest.raises(UserError, match="made with threads=1"):
        stages.pretrain()


def test_a_record_that_no_method_reads_need_not_serve_the_request(quick: Quick) -> None:
    narrow = ["recorder=[batch_updates,per_sample]", "recorder.per_sample.classes=[4]"]
    stages = stages_of(quick(*narrow, "method=amnesiac"))
    stages.unlearn(stages.pretrain())
    assert sum(artefact.stage == "record" for artefact in stages.store.artefacts()) == 2


def test_rows_that_are_not_tracked_are_refused_before_training(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD, "method=amnesiac", "recorder.batch_updates.classes=[4]"))
    with pytest.raises(UserError, match=r"recorder\.batch_updates does not track it"):
        stages.pretrain()
    assert not list((stages.plan.root / "store").glob("*/[!.]*/" + MODEL))


def test_a_method_without_its_record_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"add recorder=\[batch_updates\]"):
        plan_of("method=amnesiac")


def test_the_original_costs_the_same_in_a_result_with_and_without_a_record(quick: Quick) -> None:
    result = run(quick(*RECORD, "method=amnesiac"))
    assert result is not None
    assert result.costs["original"]["gradient_examples"] == 400
    assert result.costs["unlearned"]["gradient_examples"] == 0


def test_checkpoints_hold_the_way_from_the_beginning_to_the_original(quick: Quick) -> None:
    stages = stages_of(quick("recorder=[checkpoints]", "training.epochs=3"))
    original = stages.pretrain()
    folder = stages.record("checkpoints").path
    states = [load_file(folder / f"epoch_{epoch}.safetensors") for epoch in range(4)]
    final = load_file(original.path / MODEL)
    assert all(torch.equal(states[3][name], final[name]) for name in final)
    beginning = torch.cat([value.flatten() for value in states[0].values()])
    assert beginning.sort().values.equal(weights(stages).sort().values), "in another order"
    assert not any(torch.equal(a["0.weight"], b["0.weight"]) for a, b in pairwise(states))


def test_rows_of_a_file_are_tracked_and_no_others(quick: Quick, tmp_path: Path) -> None:
    listed, asked = tmp_path / "tracked.txt", tmp_path / "rows.txt"
    listed.write_text("3\n17\n40\n")
    recorder = ["recorder=[per_sample]", f"recorder.per_sample.rows={listed}"]
    for rows, refused in (("17\n40\n", False), ("17\n41\n", True)):
        asked.write_text(rows)
        request = ["scenario=given_rows", f"scenario.file={asked}", "method=per_sample_amnesiac"]
        stages = stages_of(quick(*recorder, *request))
        if refused:
            with pytest.raises(UserError, match=r"row 41 is to be forgotten, but recorder\.per_sample"):
                stages.unlearn(stages.pretrain())
        else:
            stages.unlearn(stages.pretrain())
            found = load_file(stages.record("per_sample").path / "rows.safetensors")
            assert found["tracked"].tolist() == [3, 17, 40] and len(found["rows"]) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["form=masked", "keep=0"], "keep=0.0: it must be above 0 and at most 1"),
        (["form=masked", "keep=1.5"], "keep=1.5: it must be above 0 and at most 1"),
        (["keep=0.5"], "set recorder.per_sample.form=masked"),
        (["attribution=preconditioned"], "set recorder.per_sample.form=dense or masked"),
        (["group_by=class", "form=factored"], "set recorder.per_sample.form=dense or masked"),
        (["classes=[1]", "rows=x.npy"], "track classes or rows"),
        (["rows=nowhere.npy"], "recorder.per_sample.rows=nowhere.npy does not exist"),
    ],
)
def test_records_that_make_no_sense_are_refused_at_once(options: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of("recorder=[per_sample]", *(f"recorder.per_sample.{option}" for option in options))
    assert words in str(refused.value)


def test_a_share_to_keep_lies_between_nothing_and_all() -> None:
    with pytest.raises(UserError, match=r"keep_first=0\.0: it must be above 0 and at most 1"):
        plan_of("recorder=[layerwise]", "recorder.layerwise.keep_first=0")


@pytest.mark.parametrize(
    "own",
    [
        ["method=amnesiac", "recorder=[batch_updates]"],
        ["method=per_sample_amnesiac", "recorder=[per_sample]"],
    ],
)
def test_a_training_without_steps_leaves_nothing_to_take_back(own: list[str], quick: Quick) -> None:
    result = run(quick("training.epochs=0", *own))
    assert result is not None and result.weights["unlearned"] == result.weights["original"]


def test_a_record_that_is_there_already_is_not_made_again(quick: Quick) -> None:
    stages_of(quick("recorder=[checkpoints]")).pretrain()
    stages = stages_of(quick("recorder=[batch_updates,checkpoints]"))
    (there,) = [artefact for artefact in stages.store.artefacts() if artefact.stage == "record"]
    written = (there.path / "about.json").stat().st_mtime_ns
    stages.pretrain()
    assert (there.path / "about.json").stat().st_mtime_ns == written
    assert stages.record("batch_updates").read("about.json")


def pretrain(plan: Plan) -> None:
    stages_of(plan).pretrain()


def test_two_runs_at_once_make_the_records_that_both_want_once(quick: Quick) -> None:
    """In either order of the recorders, neither waits for the other for ever."""
    orders = ("batch_updates,checkpoints", "checkpoints,batch_updates")
    plans = [quick(f"recorder=[{order}]", "training.epochs=5") for order in orders]
    runs = [get_context("fork").Process(target=pretrain, args=(plan,)) for plan in plans]
    for each in runs:
        each.start()
    for each in runs:
        each.join(timeout=60)
    assert [each.exitcode for each in runs] == [0, 0]
    store = stages_of(plans[0]).store
    assert sorted(a.stage for a in store.artefacts()) == ["pretrain", "record", "record", "request"]
    assert not store.leftovers() and not any(a.damage() for a in store.artefacts())


def test_the_summary_comes_before_the_first_step(quick: Quick) -> None:
    told: list[str] = []
    plan = quick("recorder=[batch_updates,per_sample]")
    stages = stages_of(plan, told.append)
    stages.pretrain()
    updates, samples = told
    assert "recorder.batch_updates: " in updates and " per tracked row, " in updates
    assert "a request for 20 rows hits 89.4% of the batches" in updates
    forms, memory, times = samples.split("; ")[2:]
    assert forms == "3 of 4 layers as factors, the others as sums"
    assert memory.startswith("2 buffers of ") and memory.endswith(" in memory")
    assert re.fullmatch(
        r"a step takes \d+\.\d\d times as long, without the disk \(form=factored: .* KiB, .* times\)",
        times,
    )


def test_a_result_says_what_its_record_takes(quick: Quick) -> None:
    result = run(quick("recorder=[batch_updates]", "method=amnesiac"))
    assert result is not None
    size = result.costs["unlearned"]["record_bytes"]
    assert 4 * 4 * 1000 < size < 4 * 4 * 10000 + 100_000
    assert result.costs["unlearned"]["record_seconds"] > 0
    assert "record_bytes" not in result.costs["reference"]
