"""A killed training goes on from its state, and ends in the bits of an undisturbed one."""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from methods.recording.batch_updates import BatchUpdates
from models.small_cnn import SmallCNN
from runner.pipeline import run
from runner.plan import Plan
from runner.plan.share import share_of
from runner.signals import ENDING, Ended
from runner.stages.checkpoint import StoredCheckpoint
from runner.stages.together import pretrain_together
from runner.stages.workspace import Workspace
from runner.store import Store
from runner.store import __main__ as command
from runner.store.artefact import sha256_of
from runner.store.marks import MACHINE
from tests.conftest import keys_of, options, plan_of, stages_of
from tests.offline_runs import written_in

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

RECORDED = plan_of("recorder=[batch_updates]").recorders

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
def struck(
    at: int, number: signal.Signals, every: int = 10**9, ready: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Send a signal to this process at the end of a step, counted from 1, once it is ready; write the
    state at every `every`-th step."""
    ended, count = StoredCheckpoint.step_ended, 0

    def step_ended(self: StoredCheckpoint) -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            self._due = 0
        if count == at:
            while not ready():
                time.sleep(0.01)
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
    for at in (1, 17, steps):
        interrupted(pretrain, disturbed := plan(), at)
        assert steps_of(pretrain, disturbed) == steps - at, "no step is repeated"
        assert bits(disturbed.root) == wanted, f"SIGTERM at step {at}"
    for at in (13, steps - 1):
        killed(pretrain, disturbed := plan(), at, every=5)
        assert steps_of(pretrain, disturbed) == steps - (at - 1) // 5 * 5, "at most five are repeated"
        assert bits(disturbed.root) == wanted, f"SIGKILL at step {at}"


@pytest.mark.parametrize(
    "method",
    [
        ["method=retrain"],
        ["method=finetune", "method.epochs=2", "method.batch_size=8", "evaluation.every=1"],
        ["method=forgetting_layers"],  # trains several times
        ["method=sisa", "method.shards=2", "method.slices=2", "training.batch_size=4"],
    ],
    ids=lambda options: options[0].removeprefix("method="),
)
def test_unlearning_by_whole_trainings_goes_on_too(method: list[str], tmp_path: Path) -> None:
    undisturbed = short_plan(tmp_path / "undisturbed", *method)
    steps = steps_of(unlearn, undisturbed)
    for at in (41, steps - 1):
        disturbed = short_plan(tmp_path / f"interrupted{at}", *method)
        interrupted(unlearn, disturbed, at)
        assert steps_of(unlearn, disturbed) <= steps - 39
        assert bits(disturbed.root) == bits(undisturbed.root)
        disturbed = short_plan(tmp_path / f"killed{at}", *method)
        killed(unlearn, disturbed, at)
        unlearn(disturbed)
        assert bits(disturbed.root) == bits(undisturbed.root)


def test_a_work_of_several_trainings_that_goes_on_tracks_each_point_once(tmp_path: Path) -> None:
    """Struck in the third training, whose state comes after the first two are repeated."""
    plan = plan_of(*SHORT, "tracking=wandb", "method=forgetting_layers", f"paths.root={tmp_path}")
    steps = steps_of(unlearn, replace(plan, root=tmp_path / "undisturbed"))
    interrupted(run, plan, steps - 1)
    assert run(plan) is not None
    (written,) = written_in(tmp_path)
    assert written.curve("unlearn/round") == [1, 2, 3]
    assert written.axes["unlearn/loss"] == "unlearn/round", "each round has an epoch 1 of its own"


def together(plan: Plan) -> None:
    ws = Workspace(plan, Store(plan.root / "store"))
    pretrain_together(ws, [plan.member(seed) for seed in (1, 2)])


def test_trainings_together_go_on_together(tmp_path: Path) -> None:
    def plan(name: str) -> Plan:
        found = plan_of(*SHORT, f"paths.root={tmp_path / name}")
        return replace(found, share=share_of(torch.arange(8), 0))

    steps = steps_of(together, undisturbed := plan("undisturbed"))
    interrupted(together, disturbed := plan("interrupted"), at=17)
    assert steps_of(together, disturbed) == steps - 17
    assert bits(disturbed.root) == bits(undisturbed.root)


@given(blows=st.lists(st.tuples(st.booleans(), st.integers(1, 39)), min_size=1, max_size=3))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_of_blows_changes_no_bit(
    tmp_path_factory: pytest.TempPathFactory, blows: list[tuple[bool, int]]
) -> None:
    recorder = ["recorder=[batch_updates,per_sample]"]
    undisturbed = short_plan(tmp_path_factory.mktemp("undisturbed"), *recorder)
    pretrain(undisturbed)
    disturbed = short_plan(tmp_path_factory.mktemp("disturbed"), *recorder)
    for hard, at in blows:
        work = struck(at, signal.SIGKILL if hard else signal.SIGTERM, every=7)
        with work:
            in_another_process(pretrain_handled, disturbed)
    pretrain(disturbed)
    assert bits(disturbed.root) == bits(undisturbed.root)


def pretrain_handled(plan: Plan) -> None:
    with ENDING.handling():
        pretrain(plan)


def states_in(plan: Plan) -> list[str]:
    """Return the names of the folders beside the artefacts of pretraining."""
    return sorted(each.name for each in (plan.root / "store/pretrain").iterdir() if each.is_dir())


def test_a_state_belongs_to_its_key_and_goes_when_the_artefact_is_there(tmp_path: Path) -> None:
    plan = short_plan(tmp_path)
    interrupted(pretrain, plan, at=5)
    (name,) = states_in(plan)
    key = name.removeprefix(".").removesuffix(".state")
    assert name == f".{key}.state" and Store(tmp_path / "store").leftovers() == []
    assert steps_of(pretrain, replace(plan, seed=1)) == 39, "another seed has another key"
    pretrain(plan)
    assert key in states_in(plan) and name not in states_in(plan)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan: replace(plan, threads=2), "was written with threads=1, here 2"),
        (lambda plan: replace(plan, recorders=RECORDED), "is of a training without one of the records"),
    ],
)
def test_a_state_that_does_not_fit_is_set_aside_with_a_sentence(
    tmp_path: Path, change: Callable[[Plan], Plan], words: str
) -> None:
    plan = short_plan(tmp_path)
    interrupted(pretrain, plan, at=5)
    told: list[str] = []
    stages = stages_of(change(plan), told.append)
    stages.pretrain()
    assert any(words in each and "it begins anew" in each for each in told)
    (aside,) = (tmp_path / "store/pretrain").glob(".*.aside")
    assert Store(tmp_path / "store").leftovers() == [aside]


def test_a_damaged_state_is_set_aside(tmp_path: Path) -> None:
    plan = short_plan(tmp_path)
    interrupted(pretrain, plan, at=5)
    (file,) = (tmp_path / "store/pretrain").glob(".*.state/state/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert steps_of(pretrain, plan) == 39


def test_a_training_without_its_recorder_goes_on_from_a_state_with_it(tmp_path: Path) -> None:
    plan = short_plan(tmp_path, "recorder=[batch_updates]")
    interrupted(pretrain, plan, at=5)
    assert steps_of(pretrain, replace(plan, recorders={})) == 39 - 5


def test_the_state_of_another_machine_is_copied_and_its_scratch_stays(tmp_path: Path) -> None:
    """Where locks do not reach, a process there may be alive."""
    plan = short_plan(tmp_path, "recorder=[batch_updates]")
    killed(pretrain, plan, at=12)
    (scratch,) = (tmp_path / "store/pretrain").glob(f".*-{MACHINE}-*")
    elsewhere = scratch.with_name(scratch.name.replace(MACHINE, "elsewhere"))
    scratch.rename(elsewhere)
    content = {file: sha256_of(file) for file in elsewhere.rglob("*.*") if file.is_file()}
    assert steps_of(pretrain, plan) == 39 - 10
    assert {file: sha256_of(file) for file in content} == content


def test_prune_leaves_unfinished_trainings_alone_unless_an_age_is_given(tmp_path: Path) -> None:
    plan = short_plan(tmp_path)
    killed(pretrain, plan, at=12)
    prune = ["--root", str(tmp_path), "prune"]
    assert command.main(prune) == 0 and len(states_in(plan)) == 1
    assert command.main([*prune, "--older-than", "1"]) == 0 and len(states_in(plan)) == 1
    assert command.main([*prune, "--older-than", "0"]) == 0 and not states_in(plan)


def test_a_state_for_which_the_disk_has_no_room_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("runner.stages.checkpoint.save_tensors", full)
    plan = short_plan(tmp_path, "training.checkpoint_minutes=1e-9")
    told: list[str] = []
    stages_of(plan, told.append).pretrain()
    assert "goes on without keeping it" in told[0] and Store(tmp_path / "store").artefacts()


def test_the_minutes_between_states_are_no_part_of_a_key() -> None:
    assert keys_of(plan_of("training.checkpoint_minutes=1")) == keys_of(plan_of())


def test_a_training_with_a_recorder_that_keeps_no_state_begins_anew(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Forgetful(BatchUpdates):
        goes_on: ClassVar[bool] = False

    (recorder,) = RECORDED.values()
    recorders = {"own": Forgetful(**vars(recorder))}
    plan = replace(short_plan(tmp_path), recorders=recorders)
    assert steps_of(pretrain, plan) == 0, "no step is one that a state is written at"
    assert {each.stage for each in Store(tmp_path / "store").artefacts()} >= {"pretrain", "record"}
