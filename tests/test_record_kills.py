"""Records of a training that is killed after its last step, or after the disk was full."""

import errno
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.disk import save_tensors
from methods.recording import files
from methods.recording.files import LOST, EntryFile
from methods.recording.recorder import close_record
from runner.plan import Plan
from runner.stages.pretrain import RecordLost
from tests.conftest import stages_of
from tests.test_resume import (
    bits,
    in_another_process,
    pretrain,
    pretrain_handled,
    short_plan,
    steps_of,
    struck,
)

NEVER = 10**9

# A state after every step.
ALWAYS = "training.checkpoint_minutes=1e-9"


def killed_when_closed(plan: Plan, number: signal.Signals) -> None:
    """Begin a training in another process, with a state at every fifth step, and end it by a signal when
    its record of per-sample gradients is closed and no artefact yet."""
    name = "methods.recording.per_sample.recorder.close_record"

    def then_strike(*record: Any) -> None:
        close_record(*record)
        os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch, struck(NEVER, signal.SIGKILL, every=5):
        patch.setattr(name, then_strike)
        assert in_another_process(pretrain_handled, plan) in (-number, 128 + number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_whose_record_was_closed_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    """Also if it is killed there again, after states that were written on the way."""
    record = ["recorder=[per_sample]", "recorder.per_sample.form=dense"]
    undisturbed = short_plan(tmp_path / "undisturbed", *record)
    steps = steps_of(pretrain, undisturbed)
    disturbed = short_plan(tmp_path / "disturbed", *record)
    killed_when_closed(disturbed, number)
    killed_when_closed(disturbed, number)
    assert steps_of(pretrain, disturbed) < steps
    assert bits(disturbed.root) == bits(undisturbed.root)


def full_at(write: Callable[..., None], *calls: int) -> Callable[..., None]:
    """Return a function that writes, but finds the disk full at some of its calls, counted from 1."""
    count = 0

    def written(*values: Any) -> None:
        nonlocal count
        count += 1
        if count in calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*values)

    return written


@pytest.mark.parametrize("name", ["batch_updates", "per_sample", "checkpoints"])
def test_a_record_that_was_lost_stays_lost_after_a_kill(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last state was written before the disk was full, when the record had files."""
    monkeypatch.setattr(files, "BLOCK", 2 * files.PAGE)
    record = [f"recorder=[{name}]", f"recorder.{name}.on_full=go_on"]
    undisturbed = short_plan(tmp_path / "undisturbed", *record)
    pretrain(undisturbed)
    disturbed = short_plan(tmp_path / "disturbed", *record)
    with monkeypatch.context() as patch:
        patch.setattr(EntryFile, "append", full_at(EntryFile.append, 22))
        patch.setattr("methods.recording.checkpoints.save_tensors", full_at(save_tensors, 3))
        gone = partial(disturbed.root.rglob, LOST)  # the disk is written to beside the training
        with struck(35, signal.SIGKILL, every=20, ready=lambda: any(gone())):
            assert in_another_process(pretrain, disturbed) == -signal.SIGKILL
    told: list[str] = []
    with pytest.raises(RecordLost, match="the original is kept"):
        stages_of(disturbed, told.append).pretrain()
    assert "goes on from the state of a killed run" in told[0]
    pretrain(disturbed)
    assert bits(disturbed.root) == bits(undisturbed.root)


def test_a_state_that_was_not_kept_leaves_the_sums_of_the_last_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first state is whole, the disk is full at the second and the third, and then comes a kill."""
    record = ["recorder=[per_sample]", "recorder.per_sample.form=dense"]
    undisturbed = short_plan(tmp_path / "undisturbed", *record)
    pretrain(undisturbed)
    disturbed = short_plan(tmp_path / "disturbed", *record)
    saving = "runner.stages.checkpoint.save_tensors"
    with monkeypatch.context() as patch:
        patch.setattr(saving, full_at(save_tensors, 2, 3))
        with struck(17, signal.SIGKILL, every=5):
            assert in_another_process(pretrain, disturbed) == -signal.SIGKILL
    assert steps_of(pretrain, disturbed) == 39 - 5
    assert bits(disturbed.root) == bits(undisturbed.root)


def test_a_disk_without_room_for_a_state_of_the_sums_has_room_for_the_record(
    small_disk: Callable[[int], Path],
) -> None:
    """A state copies the sums: 1.2 MiB of them fit on 2 MiB, and no copy beside them."""
    record = ["recorder=[per_sample]", "recorder.per_sample.form=dense", "model.hidden=64"]
    plan = short_plan(small_disk(2), *record, ALWAYS)
    told: list[str] = []
    stages = stages_of(plan, told.append)
    stages.pretrain()
    assert "goes on without keeping it" in told[1]
    assert stages.record("per_sample").damage() is None
    assert not list(plan.root.rglob("sums.bin?*"))


def test_copies_of_the_sums_take_no_room_from_another_record(small_disk: Callable[[int], Path]) -> None:
    """1.2 MiB of sums, a copy of them and 1 MiB of updates are more than 3 MiB."""
    records = ["recorder=[per_sample,batch_updates]", "recorder.per_sample.form=dense"]
    plan = short_plan(small_disk(3), *records, "model.hidden=64", "training.epochs=6", ALWAYS)
    told: list[str] = []
    stages = stages_of(plan, told.append)
    stages.pretrain()
    assert "goes on without keeping it" in told[-1]
    assert all(stages.record(name).damage() is None for name in ("per_sample", "batch_updates"))
