"""W&B, by reading back the offline file that its client wrote."""

import json
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from data.errors import UserError
from methods.training.divergence import Diverged
from runner.pipeline import run
from runner.plan import Plan
from runner.tracking import Tracker

Quick = Callable[..., Plan]
ON = ["tracking=wandb"]


def records(log: bytes) -> Iterator[bytes]:
    """The records of a W&B file: after 7 bytes of header, LevelDB's log format, blocks of 32 KiB with
    pieces of (checksum, length, type); type 1 is a whole record, 2 to 4 its first to last piece."""
    block, at, whole = 32768, 7, b""
    while at + 7 <= len(log):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", log[at : at + 7])
        if at + 7 + length > len(log):
            return  # still being written
        whole += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


class Written:
    """What an offline run file holds."""

    def __init__(self, path: Path) -> None:
        self.run: Any = None
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.exit_code: int | None = None
        for data in records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config |= _items(record.run.config.update)
            elif kind == "config":
                self.config |= _items(record.config.update)
            elif kind == "summary":
                self.summary |= _items(record.summary.update)
            elif kind == "history":
                self.history.append(_items(record.history.item))
            elif kind == "exit":
                self.exit_code = record.exit.exit_code


def written_to(path: Path) -> Written:
    """The file with its end: on a busy machine W&B's own process is a moment behind `finish`."""
    patience = time.monotonic() + 60
    while (written := Written(path)).exit_code is None and time.monotonic() < patience:
        time.sleep(0.1)
    return written


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def files(root: Path) -> list[Path]:
    return sorted(root.glob("wandb/offline-run-*/*.wandb"))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)


def test_a_run_is_described_followed_and_summed_up(quick: Quick) -> None:
    plan = quick(*ON, "training.epochs=3", "evaluation.every=2")
    row = run(plan)
    assert row is not None
    (path,) = files(plan.root)
    written = written_to(path)
    assert written.run.run_group == "digits_small_cnn_whole_class"
    assert written.run.job_type == "finetune"
    assert written.run.display_name == "finetune/whole_class/s0"
    assert list(written.run.tags) == ["digits", "small_cnn"]
    assert written.config["method.lr"] == 0.02 and written.config["pretrain.training.epochs"] == 3
    curve = [point["pretrain/loss"] for point in written.history if "pretrain/loss" in point]
    assert len(curve) == 3 and curve[-1] < curve[0]
    assert len([p for p in written.history if "unlearn/loss" in p]) == 5
    assert len([p for p in written.history if "reference/loss" in p]) == 3
    scored = [p for p in written.history if "unlearn_scores/test_accuracy" in p]
    assert [p["unlearn_scores/pass"] for p in scored] == [2, 4]
    scores = row.scores["unlearned"]
    assert written.summary["test_accuracy"] == pytest.approx(scores["test_accuracy"])
    gap = scores["test_accuracy"] - row.scores["reference"]["test_accuracy"]
    assert written.summary["gap/test_accuracy"] == pytest.approx(gap)
    assert written.summary["reference/gradient_examples"] == 180 * 3
    logged = {key for point in written.history for key in point}
    assert {"result", "confusion/unlearned", "confusion/original", "confusion/reference"} <= {
        key.split("/_")[0] for key in logged
    } | logged
    assert list((path.parent / "files" / "media").rglob("*.png")), "the images are stored"
    assert written.exit_code == 0


def test_a_repeated_run_continues_under_the_same_id_with_the_same_curves(quick: Quick) -> None:
    plan = quick(*ON)
    run(plan)
    run(plan)
    first, second = (written_to(path) for path in files(plan.root))
    assert first.run.run_id == second.run.run_id
    ours = [
        [{k: v for k, v in point.items() if "/" in k and "media" not in k} for point in written.history]
        for written in (first, second)
    ]
    assert [p for p in ours[0] if "pretrain/loss" in p] == [p for p in ours[1] if "pretrain/loss" in p]


class Counting(Tracker):
    """Counts the points of each group of curves."""

    def __init__(self) -> None:
        self.points: Counter[str] = Counter()

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        self.points[stage] += 1


@pytest.mark.parametrize(
    "options",
    [
        ["method=amnesiac", "recorder=[batch_updates,checkpoints]"],
        ["method=bad_teacher", "method.batch_size=10"],  # loads the original again
    ],
)
def test_a_run_tracks_each_curve_once_however_often_it_asks_for_the_model(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    for tracker in (Counting(), Counting()):  # the models are made, then found
        monkeypatch.setattr("runner.pipeline.track", lambda plan, here=tracker: nullcontext(here))
        run(quick("training.epochs=2", *options))
        assert tracker.points["pretrain"] == tracker.points["reference"] == 2


def test_every_job_of_a_process_has_its_own_closed_run(quick: Quick) -> None:
    for seed in (0, 1, 2):
        run(quick(*ON, f"seed={seed}"))
    written = [written_to(path) for path in files(quick().root)]
    assert len({w.run.run_id for w in written}) == 3
    assert [w.exit_code for w in written] == [0, 0, 0]


def test_a_failing_job_closes_its_run_as_failed(quick: Quick) -> None:
    plan = quick(*ON, "training.lr=1e6", "training.epochs=40")
    with pytest.raises(Diverged):
        run(plan)
    assert written_to(files(plan.root)[0]).exit_code == 1


def test_the_salt_changes_the_id_and_off_writes_nothing(quick: Quick) -> None:
    run(quick(*ON))
    run(quick(*ON, "tracking.salt=again"))
    assert len({written_to(path).run.run_id for path in files(quick().root)}) == 2
    run(quick("seed=5"))
    assert len(files(quick().root)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["tracking.project=a/b"], "tracking.project=a/b: write a name"),
        (["tracking.project='a#b'"], "without / "),
        (["tracking.project="], "tracking.project=: write a name of 1 to 128"),
        ([f"tracking.project={'a' * 129}"], "write a name of 1 to 128 characters"),
        (["tracking.entity=team/project"], "tracking.entity=team/project: write a name"),
        (["tracking.entity=''"], "tracking.entity=: write a name"),
    ],
)
def test_names_that_wandb_refuses_are_refused_before_work(
    quick: Quick, options: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        quick(*ON, *options)
    quick(*options)  # without tracking they matter to nobody


def test_a_mode_that_is_none_is_refused_before_work(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "off")
    with pytest.raises(UserError, match="WANDB_MODE=off: set it to one of online, offline, disabled"):
        quick(*ON)
    quick(*ON, "tracking.mode=offline")
    quick()
    for mode in ("", "dryrun", "disabled", "online"):
        monkeypatch.setenv("WANDB_MODE", mode)
        quick(*ON)


def test_the_environment_chooses_the_mode(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run(quick(*ON))
    assert not files(quick().root)
    run(quick(*ON, "tracking.mode=offline"))
    assert len(files(quick().root)) == 1
