"""A killed training goes on from its state, and ends in the bits of an undisturbed one."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch import nn

from models.small_cnn import SmallCNN
from runner.ending import ENDING, Ended
from runner.plan import Plan
from runner.stages.checkpoint import StoredCheckpoint
from runner.stages.together import pretrain_together
from runner.stages.workspace import Workspace
from runner.store import Store
from runner.store.artefact import sha256_of
from runner.tracking import Tracker
from tests.conftest import options, plan_of, stages_of

# 39 steps of a training that draws orders and crops.
SHORT = [
    "data.limit=10",
    "dataset.crop=1",
    "model.widths=[4,8]",
    "model.hidden=16",
    "training.epochs=3",
    "training.batch_size=8",
    "training.optimizer=adam",
    "training.warmup=1",
    "training.schedule=cosine",
    "tracking=off",
    "threads=1",
    "evaluation.references=1",
]

# What is the same in two runs of one plan: all files but these, and of costs the counts.
TIMES = {"cost.json", "provenance.json", "checksums.json"}
COUNTS = ("gradient_examples", "forward_examples")

Work = Callable[[Plan], object]


@dataclass(frozen=True)
class Dropping(SmallCNN):
    """The small CNN with dropout, which draws from the global random generator."""

    kind: ClassVar[str] = "tests.test_resume.Dropping"

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        *layers, last = super().build(channels, size, classes).children()
        return nn.Sequential(*layers, nn.Dropout(), last)


def short_plan(root: Path, *overrides: str) -> Plan:
    """Return the plan of a short training of the CNN with dropout."""
    plan = plan_of(*SHORT, *overrides, f"paths.root={root}")
    return replace(plan, architecture=Dropping(**vars(plan.architecture)))


def bits(root: Path) -> dict[str, Any]:
    """Return the checksum of every file of a store, and the counted costs."""
    found: dict[str, Any] = {}
    for artefact in Store(root / "store").artefacts():
        name = f"{artefact.stage}/{artefact.key}"
        assert artefact.damage() is None
        for file in sorted(artefact.path.iterdir()):
            if file.name not in TIMES:
                found[f"{name}/{file.name}"] = sha256_of(file)
        if (artefact.path / "cost.json").exists():
            cost = artefact.read("cost.json")
            found[f"{name}/cost"] = {each: cost.get(each) for each in COUNTS}
    return found


def pretrain(plan: Plan) -> None:
    stages_of(plan).pretrain()


def unlearn(plan: Plan) -> None:
    stages = stages_of(plan)
    stages.unlearn(stages.pretrain())


def in_another_process(work: Work, plan: Plan) -> int | None:
    process = get_context("fork").Process(target=work, args=(plan,))
    process.start()
    process.join()
    return process.exitcode


@contextmanager
def struck(at: int, number: signal.Signals, every: int = 10**9) -> Iterator[None]:
    """Send a signal to this process at the end of a step, counted from 1; write the state at every
    `every`-th step."""
    ended, count = StoredCheckpoint.step_ended, 0

    def step_ended(self: StoredCheckpoint) -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            self._due = 0
        if count == at:
            os.kill(os.getpid(), number)
        ended(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredCheckpoint, "step_ended", step_ended)
        yield


def interrupted(work: Work, plan: Plan, at: int) -> None:
    """Begin a piece of work, and end it by SIGTERM."""
    with ENDING.handling(), struck(at, signal.SIGTERM), pytest.raises(Ended):
        work(plan)


def killed(work: Work, plan: Plan, at: int, every: int = 5) -> None:
    """Begin a piece of work in another process, and end it by SIGKILL."""
    with struck(at, signal.SIGKILL, every):
        assert in_another_process(work, plan) == -signal.SIGKILL


def steps_of(work: Work, plan: Plan) -> int:
    """Do a piece of work, and return the number of its steps."""
    ended, count = StoredCheckpoint.step_ended, 0

    def step_ended(self: StoredCheckpoint) -> None:
        nonlocal count
        count += 1
        ended(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredCheckpoint, "step_ended", step_ended)
        work(plan)
    return count


@pytest.mark.parametrize(
    "recorder",
    [
        [],
        *([f"recorder=[{name}]"] for name in options("recorder")),
        ["recorder=[layerwise]", "recorder.layerwise.mask=magnitude"],
        ["recorder=[per_sample]", "recorder.per_sample.dtype=int8"],
        ["recorder=[per_sample]", "recorder.per_sample.form=masked", "recorder.per_sample.keep=0.1"],
        ["recorder=[per_sample]", "recorder.per_sample.group_by=class"],
        ["recorder=[checkpoints,bayesian,batch_updates]"],
    ],
    ids=lambda options: "-".join(options) or "none",
)
def test_a_training_goes_on_to_the_same_bits(recorder: list[str], tmp_path: Path) -> None:
    if "recorder=[leave_one_out]" in recorder:
        recorder = [*recorder, "recorder.leave_one_out.classes=[3]", "training.epochs=2"]
    roots = iter(range(100))

    def plan() -> Plan:
        return short_plan(tmp_path / str(next(roots)), *recorder)

    steps = steps_of(pretrain, undisturbed := plan())
    wanted = bits(undisturbed.root)
    for at in (1, 13, 17, steps - 1, steps):
        pretrain_interrupted, pretrain_killed = plan(), plan()
        interrupted(pretrain, pretrain_interrupted, at)
        killed(pretrain, pretrain_killed, at)
        for disturbed in (pretrain_interrupted, pretrain_killed):
            pretrain(disturbed)
            assert bits(disturbed.root) == wanted, f"at step {at}"
            assert not list((disturbed.root / "store").glob("*/.*[!k]/")), "nothing is left behind"
