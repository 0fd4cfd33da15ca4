"""Records that are altered, lost, or do not fit on the disk."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from data.disk import save_tensors, says_full
from data.errors import UserError
from methods.recording.batch_updates import UpdateRecord
from methods.recording.checkpoints import Checkpoints
from methods.recording.files import EntryFile, Writer
from methods.recording.recorder import RecordedTraining, Recorder
from methods.training.descent import Step
from methods.training.divergence import Diverged
from runner.plan import Plan
from runner.stages.models import MODEL
from runner.store import Artefact, Making
from runner.tracking import Tracker
from tests.conftest import stages_of
from tests.recording import RECORD

Quick = Callable[..., Plan]


def test_an_altered_record_is_made_again(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD))
    stages.pretrain()
    path = stages.record("batch_updates").path / "updates.entries"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    again = stages_of(quick(*RECORD))
    again.pretrain()
    assert (again.record("batch_updates").path / "updates.entries").read_bytes() == whole


def put_weights_of(other: Artefact, made: Artefact) -> None:
    """Give `made` the weights of `other`, as if its training had ended there."""
    (made.path / MODEL).write_bytes((other.path / MODEL).read_bytes())
    sums = made.read("checksums.json") | {MODEL: other.checksum(MODEL)}
    text = json.dumps(sums, indent=2, sort_keys=True) + "\n"  # as the store writes it
    (made.path / "checksums.json").write_text(text)


def test_a_record_that_belongs_to_other_weights_is_refused(quick: Quick) -> None:
    """As if another release of torch had made the original."""
    stages = stages_of(quick("training.epochs=2"))
    made = stages.pretrain()
    other = stages_of(quick("training.epochs=2", "seed=1")).pretrain()
    put_weights_of(other, made)
    with pytest.raises(UserError, match="did not end in the weights of the stored original"):
        stages_of(quick(*RECORD)).pretrain()


def test_a_record_is_not_kept_with_the_original_of_a_machine_that_was_first(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks do not reach other machines everywhere, and another machine may round otherwise."""
    theirs = stages_of(quick("training.epochs=2", "paths.root=" + str(quick().root / "theirs")))
    other = stages_of(quick("training.epochs=2", "seed=1")).pretrain()
    first = theirs.pretrain()
    put_weights_of(other, first)
    keep = Making.keep

    def beaten(making: Making, name: str) -> Artefact:
        if name == "pretrain":
            shutil.copytree(first.path, making._missing[name][0].path)
        return keep(making, name)

    monkeypatch.setattr(Making, "keep", beaten)
    stages = stages_of(quick(*RECORD))
    with pytest.raises(UserError, match="did not end in the weights of the stored original"):
        stages.pretrain()
    assert "record" not in {artefact.stage for artefact in stages.store.artefacts()}


def test_a_record_is_not_used_with_another_original(quick: Quick) -> None:
    """As if the original had been deleted and made again on another machine."""
    amnesiac = [*RECORD, "method=amnesiac"]
    stages = stages_of(quick(*amnesiac))
    stages.pretrain()
    put_weights_of(stages_of(quick("training.epochs=2", "seed=1")).pretrain(), stages.pretrain())
    again = stages_of(quick(*amnesiac))
    with pytest.raises(UserError, match=r"recorder\.batch_updates .* other weights .* is set aside"):
        again.unlearn(again.pretrain())


def test_an_entry_that_was_altered_is_found_when_it_is_read_and_recorded_anew(quick: Quick) -> None:
    """When the store opens a record, it checks only the length of its entries."""
    request = ["recorder=[batch_updates]", "method=amnesiac"]
    stages = stages_of(quick(*request))
    stages.pretrain()
    path = stages.record("batch_updates").path / "updates.entries"
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert stages.record("batch_updates").damage() == "updates.entries differs from what was written"
    again = stages_of(quick(*request))
    with pytest.raises(UserError, match="set aside: run again, and it is made anew"):
        again.unlearn(again.pretrain())
    third = stages_of(quick(*request))
    third.unlearn(third.pretrain())
    assert path.read_bytes() == whole


def test_what_a_writer_fails_at_is_raised_where_it_was_asked_for(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), Writer(tmp_path, go_on=True) as writer:
        writer.do(fail)


def test_a_training_that_ended_is_kept_when_a_record_of_it_fails_later(quick: Quick) -> None:
    """The Bayesian record begins after the last step."""
    stages = stages_of(quick("recorder=[bayesian]", "recorder.bayesian.initial=1e6"))
    with pytest.raises(Diverged):
        stages.pretrain()
    assert {artefact.stage for artefact in stages.store.artefacts()} == {"request", "pretrain"}
    plain = stages_of(quick())
    assert plain.pretrain().read("cost.json")["gradient_examples"] == 200
    assert len(plain.pretrain().read("curves.json")) == 1


def test_what_a_record_took_that_failed_is_no_cost_of_the_kept_training(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(self: Recorder, steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
        yield from steps
        time.sleep(2)
        raise ValueError("no")

    monkeypatch.setattr(Checkpoints, "watch", watch)
    stages = stages_of(quick("recorder=[checkpoints]"))
    with pytest.raises(ValueError, match="no"):
        stages.pretrain()
    monkeypatch.undo()
    assert stages_of(quick()).pretrain().read("cost.json")["seconds"] < 2


# Full disks


def full(*jobs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("on_full", ["stop", "go_on"])
def test_a_disk_that_fills_up_ends_the_record_and_the_training_if_asked(
    quick: Quick, on_full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EntryFile, "append", full)
    several = ["recorder=[batch_updates,checkpoints]", "training.epochs=3"]
    stages = stages_of(quick(*several, f"recorder.batch_updates.on_full={on_full}"))
    with pytest.raises(UserError, match=r"disk .* full|disk filled up"):
        stages.pretrain()
    kept = {artefact.stage for artefact in stages.store.artefacts()}
    assert kept == ({"request"} if on_full == "stop" else {"request", "pretrain", "record"})
    assert not stages.store.leftovers()
    monkeypatch.undo()
    again = stages_of(quick("recorder=[batch_updates,checkpoints]"))
    again.pretrain()
    assert len(UpdateRecord.open(again.record("batch_updates").path).rows) == 4


def _fills_the_disk_at_the_end(steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
    """A recorder whose last file does not fit any more, when the training has ended."""
    yield from steps
    file = training.folder / "big"
    with file.open("wb") as opened:
        while True:
            opened.write(bytes(4096))
            opened.flush()


@pytest.mark.parametrize("when", ["after the model", "before the model"])
def test_a_finished_training_outlives_a_record_that_fills_the_disk(
    quick: Quick, small_disk: Callable[[int], Path], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record has taken the room of the model itself, or of the small files beside it."""
    plan = quick("recorder=[checkpoints]", f"paths.root={small_disk(8)}")
    watch = _fills_the_disk_at_the_end if when == "after the model" else _fills_the_disk_at_once
    monkeypatch.setattr(Checkpoints, "watch", lambda self, *given: watch(*given))
    stages = stages_of(plan)
    with pytest.raises(
        UserError, match=r"is full: free some space \(python -m runner\.store --root .*disk0 "
    ):
        stages.pretrain()
    assert {artefact.stage for artefact in stages.store.artefacts()} == {"request", "pretrain"}
    assert all(artefact.damage() is None for artefact in stages.store.artefacts())


def _fills_the_disk_at_once(steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
    """A recorder that leaves no room, and notices nothing of it."""
    free = shutil.disk_usage(training.folder).free
    (training.folder / "big").write_bytes(bytes(free))
    yield from steps


def test_every_writers_words_for_a_full_disk_are_known(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1)
    source = folder.parent / "source"
    source.mkdir()
    (source / "big").write_bytes(bytes(2**21))
    writers: list[Callable[[], object]] = [
        lambda: (folder / "a").write_bytes(bytes(2**21)),
        lambda: np.save(folder / "a", np.zeros(2**18)),
        lambda: save_tensors({"a": torch.zeros(2**19)}, folder / "a"),
        lambda: shutil.copytree(source, folder / "b"),
    ]
    for write in writers:
        with pytest.raises(Exception) as raised:
            write()
        assert says_full(raised.value), raised.value
        (folder / "a").unlink(missing_ok=True)
    assert not says_full(OSError(errno.EACCES, "Permission denied")) and not says_full(shutil.Error([]))


class Filling(Tracker):
    """Another program, which fills a disk up to `left` bytes after the first epoch."""

    def __init__(self, disk: Path, left: int) -> None:
        self.disk, self.left = disk, left

    def curve(self, stage: str, point: Mapping[str, float]) -> None:
        if not (self.disk / "filler").exists():
            size = shutil.disk_usage(self.disk).free - self.left
            (self.disk / "filler").write_bytes(bytes(size))


@pytest.mark.parametrize("recorder", ["batch_updates", "checkpoints"])
def test_the_training_outlives_a_disk_that_is_really_full(
    quick: Quick, small_disk: Callable[[int], Path], recorder: str
) -> None:
    """The record's files are deleted, which makes room for the model."""
    root = small_disk(24)
    options = [f"recorder=[{recorder}]", f"recorder.{recorder}.on_full=go_on", "model.hidden=256"]
    plan = quick(*options, "training.epochs=8", "training.batch_size=40", f"paths.root={root}")
    stages = stages_of(plan, tracker=Filling(root, 200_000))
    with pytest.raises(UserError, match="the disk filled up, and the training went on"):
        stages.pretrain()
    assert {artefact.stage for artefact in stages.store.artefacts()} == {"request", "pretrain"}


def test_a_file_name_that_a_flipped_byte_repeats_is_damage(quick: Quick) -> None:
    """JSON keeps the last of two equal names, so one file would go unchecked."""
    stages = stages_of(quick("recorder=[checkpoints]"))
    stages.pretrain()
    made = stages.record("checkpoints")
    sums = made.path / "checksums.json"
    sums.write_bytes(sums.read_bytes().replace(b"epoch_0", b"epoch_1", 1))
    assert json.loads(sums.read_text()).keys() < {path.name for path in made.path.iterdir()}
    assert made.damage() is not None
