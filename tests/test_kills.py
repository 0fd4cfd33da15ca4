"""A kill in the middle of any stage changes no digit of a result."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from runner.plan import Plan
from runner.store import Store
from tests.conftest import QUICK, digits_of, stages_of
from tests.forked import run_module, start_module
from tests.test_resume import bits, interrupted, killed, pretrain, short_plan, steps_of

# Half a second of work in every stage, so that a kill meets it in the middle.
LONG = [*QUICK, "training.epochs=100", "method.epochs=100"]
RECORDED = [*QUICK, "training.epochs=100", "recorder=[batch_updates,per_sample]"]
RECORDED += ["method=per_sample_amnesiac", "method.strength=1"]
REPAIRED = [*LONG, "repair=epochs", "repair.epochs=100"]
SISA = [*QUICK, "training.epochs=100", "method=sisa", "method.shards=2", "method.slices=2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], dict[str, Any]]:
    """Return the scores of runs that nothing disturbs; each run is made once."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}

    def scores(options: list[str]) -> dict[str, Any]:
        if tuple(options) not in found:
            root = tmp_path_factory.mktemp("undisturbed")
            assert run_module("runner", *options, f"paths.root={root}").returncode == 0
            found[tuple(options)] = digits_of(root)
        return found[tuple(options)]

    return scores


@pytest.mark.parametrize(
    ("options", "stage", "finished", "delay"),
    [
        (LONG, "pretrain", 0, 0.0),
        (LONG, "pretrain", 0, 0.1),
        (LONG, "unlearn", 0, 0.0),
        (LONG, "unlearn", 1, 0.1),  # the reference
        (REPAIRED, "repair", 0, 0.05),
        (RECORDED, "pretrain", 0, 0.0),
        (RECORDED, "pretrain", 0, 0.1),
        (SISA, "slice", 1, 0.0),
    ],
)
def test_a_kill_in_the_middle_of_a_stage_changes_no_digit(
    tmp_path: Path,
    undisturbed: Callable[[list[str]], dict[str, Any]],
    options: list[str],
    stage: str,
    finished: int,
    delay: float,
) -> None:
    """Kill a run while it makes an artefact of a stage, after so many others of that stage."""
    command = [*options, f"paths.root={tmp_path}"]
    store = Store(tmp_path / "store")
    process = start_module("runner", *command, out=tmp_path / "out", err=tmp_path / "err")
    wait_for_work(process, store, stage, finished)
    time.sleep(delay)
    assert process.is_alive(), (tmp_path / "err").read_text()
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it had ended before the kill"
    assert at_work(store, stage), "the stage had ended before the kill"
    assert not list((tmp_path / "results").glob("*/*.json"))

    assert run_module("runner", *command).returncode == 0
    assert digits_of(tmp_path) == undisturbed(options)
    assert not store.leftovers() and all(made.damage() is None for made in store.artefacts())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize(("stage", "delay"), [("pretrain", 0.1), ("predict", 0.0)])
def test_a_signal_ends_a_run_with_a_sentence_and_leaves_no_scratch(
    tmp_path: Path,
    undisturbed: Callable[[list[str]], dict[str, Any]],
    number: signal.Signals,
    stage: str,
    delay: float,
) -> None:
    command = [*LONG, f"paths.root={tmp_path}"]
    store = Store(tmp_path / "store")
    process = start_module("runner", *command, out=tmp_path / "out", err=tmp_path / "err")
    wait_for_work(process, store, stage, 0)
    time.sleep(delay)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    said = (tmp_path / "err").read_text()
    assert process.exitcode == 128 + number, said
    assert said.count(f"ended by {number.name}: ") == 1 and "Traceback" not in said
    assert not store.leftovers() and not at_work(store, stage)
    assert len(store.unfinished()) == (stage == "pretrain"), "the training keeps its state"

    assert run_module("runner", *command).returncode == 0
    assert digits_of(tmp_path) == undisturbed(LONG) and not store.unfinished()


def wait_for_work(process: ForkServerProcess, store: Store, stage: str, finished: int) -> None:
    """Wait until the process makes an artefact of a stage that holds so many already."""
    deadline = time.monotonic() + 60
    while not at_work(store, stage) or len(list((store.root / stage).glob("[!.]*"))) < finished:
        assert process.is_alive() and time.monotonic() < deadline, "the stage did not begin"
        time.sleep(0.001)


def at_work(store: Store, stage: str) -> list[Path]:
    """Return the scratch folders of a stage whose artefacts are not finished."""
    found = [path for path in (store.root / stage).glob(".*-*") if path.is_dir()]
    return [path for path in found if not path.with_name(path.name[1:17]).exists()]


def repair(plan: Plan) -> None:
    stages = stages_of(plan)
    stages.repair(stages.unlearn(stages.pretrain()))


@pytest.mark.parametrize("recovered", ["null", "0.01", "0"])
def test_a_repair_goes_on_too(recovered: str, tmp_path: Path) -> None:
    """With the rows that its next measurement of accuracy is made on, and up to the same step."""
    options = ["method=original", "repair=recovered", f"repair.recovered={recovered}"]
    plan = short_plan(tmp_path / "undisturbed", *options)
    pretrain(plan)
    steps = steps_of(repair, plan)
    for at in (20, steps - 1):
        for blow in (interrupted, killed):
            disturbed = replace(plan, root=tmp_path / f"{blow.__name__}{at}")
            pretrain(disturbed)
            blow(repair, disturbed, at)
            kept = at if blow is interrupted else (at - 1) // 5 * 5
            assert steps_of(repair, disturbed) == steps - kept
            assert bits(disturbed.root) == bits(plan.root)
