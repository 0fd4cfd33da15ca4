"""Killed work that another command finds: it goes on only with the work that its state is of."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.errors import UserError
from data.requests import Request
from runner.plan import Plan, identities
from runner.plan.share import share_of
from runner.stages.pretrain import pretrain as pretrain_alone
from runner.stages.together import pretrain_together
from runner.stages.workspace import Workspace
from runner.store import Artefact, Making, Store, fingerprint
from runner.store.making import ABOUT, STATE
from runner.store.marks import MACHINE
from runner.tracking import Tracker
from tests.conftest import plan_of, stages_of
from tests.test_resume import (
    SHORT,
    bits,
    in_another_process,
    interrupted,
    killed,
    pretrain,
    short_plan,
    steps_of,
    struck,
)

SHADOWS = range(4)
NEVER = 10**9


def states_of(plan: Plan) -> list[Path]:
    return list((plan.root / "store/pretrain").glob(f".*/{STATE}/{ABOUT}"))


@pytest.mark.parametrize("recorder", ["batch_updates", "per_sample"])
def test_a_record_that_a_state_leaves_out_is_made_from_the_first_step(
    tmp_path: Path, recorder: str
) -> None:
    """A command without the record takes the state over, is interrupted too, and writes another one."""
    undisturbed = short_plan(tmp_path / "undisturbed", f"recorder=[{recorder}]")
    pretrain(undisturbed)
    disturbed = short_plan(tmp_path / "disturbed", f"recorder=[{recorder}]")
    interrupted(pretrain, disturbed, at=9)
    interrupted(pretrain, replace(disturbed, recorders={}), at=9)
    told: list[str] = []
    stages_of(disturbed, told.append).pretrain()
    assert any("is of a training without one of the records: it begins anew" in each for each in told)
    assert bits(disturbed.root) == bits(undisturbed.root)


def shadow_plan(root: Path) -> Plan:
    return plan_of(*SHORT, f"paths.root={root}")


def shadow(plan: Plan, number: int) -> Plan:
    return replace(plan.member(number), share=share_of(torch.arange(10), number))


def together(numbers: Iterable[int]) -> Callable[[Plan], None]:
    """Return the work that makes the originals of some shadows in one training."""

    def work(plan: Plan) -> None:
        workspace = Workspace(plan, Store(plan.root / "store"), Tracker())
        pretrain_together(workspace, [shadow(plan, number) for number in numbers])

    return work


def first_of_all(plan: Plan) -> int:
    """Return the shadow whose key comes first: the state lies beside its original."""
    return min(SHADOWS, key=lambda number: key_of(plan, number))


def key_of(plan: Plan, number: int) -> str:
    return fingerprint(identities.pretrain(shadow(plan, number)))


def test_the_state_of_models_that_train_together_is_not_one_of_fewer(tmp_path: Path) -> None:
    plan = shadow_plan(tmp_path / "disturbed")
    interrupted(together(SHADOWS), plan, at=10)
    first = first_of_all(plan)
    fewer = sorted({first, (first + 1) % len(SHADOWS)})
    together(fewer)(plan)
    together(fewer)(undisturbed := shadow_plan(tmp_path / "undisturbed"))
    assert bits(plan.root) == bits(undisturbed.root) and len(bits(plan.root)) > 0
    assert not states_of(plan) or all(".aside" in str(each) for each in states_of(plan))


def test_the_state_of_models_that_train_together_is_not_that_of_one_alone(tmp_path: Path) -> None:
    plan = shadow_plan(tmp_path)
    interrupted(together(SHADOWS), plan, at=10)
    alone = shadow(plan, first_of_all(plan))
    workspace = Workspace(alone, Store(plan.root / "store"), Tracker())
    made = pretrain_alone(workspace, Request(torch.arange(10), torch.arange(0)))
    assert made.damage() is None and made.key == key_of(plan, first_of_all(plan))


def test_models_of_which_some_were_stored_before_a_kill_train_together_anew(tmp_path: Path) -> None:
    """SIGKILL comes when two of four are stored; the state is of all four, beside a missing one."""
    plan = shadow_plan(tmp_path)
    first = first_of_all(plan)
    last = sorted(SHADOWS, key=lambda number: number == first)
    killed_when_kept(2, together(last), plan)
    assert len(stored(plan)) == 2 and states_of(plan)
    together(last)(plan)
    assert stored(plan) == {key_of(plan, number) for number in SHADOWS}


def stored(plan: Plan) -> set[str]:
    return {made.key for made in Store(plan.root / "store").artefacts() if made.stage == "pretrain"}


def killed_when_kept(count: int, work: Callable[[Plan], None], plan: Plan) -> None:
    """Begin a piece of work in another process, with a state at every fifth step, and end it by SIGKILL
    when so many of its artefacts are stored."""
    keep, kept = Making.keep, 0

    def then_strike(making: Making, name: str) -> Artefact:
        nonlocal kept
        made = keep(making, name)
        kept += 1
        if kept == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    with pytest.MonkeyPatch.context() as patch, struck(NEVER, signal.SIGKILL, every=5):
        patch.setattr(Making, "keep", then_strike)
        assert in_another_process(work, plan) == -signal.SIGKILL


def test_a_state_that_another_machine_replaces_while_it_is_copied_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records that were copied may be older, or newer, than the state that was."""
    undisturbed = short_plan(tmp_path / "undisturbed", "recorder=[batch_updates]")
    pretrain(undisturbed)
    plan = short_plan(tmp_path / "disturbed", "recorder=[batch_updates]")
    killed(pretrain, plan, at=12)
    (file,) = states_of(plan)
    scratch = file.parents[1]
    elsewhere = scratch.rename(scratch.with_name(scratch.name.replace(MACHINE, "elsewhere")))
    copied = shutil.copytree

    def beside_a_process(source: Path, target: Path) -> None:
        copied(source, target)
        if source.name.startswith("record."):
            state = elsewhere / STATE / ABOUT
            state.write_text(state.read_text() + " ")

    monkeypatch.setattr(shutil, "copytree", beside_a_process)
    assert steps_of(pretrain, plan) == 39 and elsewhere.is_dir()
    assert bits(plan.root) == bits(undisturbed.root)


def test_a_copy_of_a_state_that_is_not_whole_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = short_plan(tmp_path)
    killed(pretrain, plan, at=12)
    (file,) = states_of(plan)
    scratch = file.parents[1]
    scratch.rename(scratch.with_name(scratch.name.replace(MACHINE, "elsewhere")))
    copied = shutil.copytree

    def torn(source: Path, target: Path) -> None:
        copied(source, target)
        for tensors in target.glob("*.safetensors"):
            os.truncate(tensors, tensors.stat().st_size - 1)

    monkeypatch.setattr(shutil, "copytree", torn)
    assert steps_of(pretrain, plan) == 39


def test_a_state_that_does_not_fit_ends_in_a_sentence_and_then_the_training_begins_anew(
    tmp_path: Path,
) -> None:
    plan = short_plan(tmp_path)
    interrupted(pretrain, plan, at=5)
    (file,) = states_of(plan)
    about = json.loads(file.read_text())
    about["values"]["pairs"] = [pair for pair in about["values"]["pairs"] if pair[0] != "optimizer"]
    file.write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"does not fit its optimizer.*say the command again"):
        pretrain(plan)
    assert not states_of(plan) and steps_of(pretrain, plan) == 39
