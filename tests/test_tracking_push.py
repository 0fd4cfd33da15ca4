"""Pushing stored results into W&B, and the sweep whose agents call this program."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

import runner.tracking
from data.errors import UserError
from methods.training.divergence import Diverged
from runner.compose import composed
from runner.pipeline import run
from runner.plan import Plan
from runner.tracking.__main__ import main
from runner.tracking.push import push
from tests.conftest import QUICK, plan_of
from tests.offline_runs import VARIABLES, Written, files, written_in

Quick = Callable[..., Plan]
ON = ["tracking.enabled=true"]
NAME = "digits_small_cnn_whole_class"
ROOT = Path(__file__).parent.parent
SWEEP = Path(runner.tracking.__file__).parent / "sweep.yaml"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


def told(quick: Quick, *overrides: str) -> list[str]:
    """Run a plan without tracking, as its command would, and return the command's options."""
    asked = [*QUICK, *overrides]
    run(quick(*overrides), asked)
    return asked


def pushed(root: Path) -> list[str]:
    """Push the results under a root, and return what was said."""
    said: list[str] = []
    push(NAME, root, plan_of(*ON).tracking, said.append)
    return said


def essence(written: Written) -> tuple[Any, ...]:
    """What a run holds, without the client's own values and the time."""
    points = [{k: v for k, v in p.items() if k[0] != "_" and "/_" not in k} for p in written.history]
    scalars = {k: v for k, v in written.summary.items() if isinstance(v, float | int) and k[0] != "_"}
    names = written.run.run_id, written.run.display_name, written.run.run_group
    config = {name: value for name, value in written.config.items() if name[0] != "_"}
    curves = [point for point in points if not any(name.startswith("final/") for name in point)]
    return names, config, curves, scalars


def test_a_pushed_run_is_the_run_that_would_have_been_tracked(quick: Quick) -> None:
    overrides = ["repair=epochs", "repair.epochs=2", "evaluation.every=1", "seed=2"]
    asked = told(quick, *overrides)
    assert not files(quick().root)
    assert pushed(quick().root) == []
    (stored,) = written_in(quick().root)
    run(quick(*ON, *overrides, "tracking.salt="), asked)
    (live,) = written_in(quick().root)
    assert essence(stored) == essence(live)
    assert stored.curve("pretrain/epoch") == [1] and stored.curve("repair/epoch") == [1, 2]


def test_pushing_twice_gives_the_same_runs(quick: Quick) -> None:
    for seed in (0, 1):
        told(quick, f"seed={seed}")
    pushed(quick().root)
    before = {each.run.run_id: essence(each) for each in written_in(quick().root)}
    pushed(quick().root)
    after = {each.run.run_id: essence(each) for each in written_in(quick().root)}
    assert before == after and len(files(quick().root)) == len(before) == 2


def test_a_result_that_diverged_is_pushed_as_failed(quick: Quick) -> None:
    with pytest.raises(Diverged):
        told(quick, "training.lr=1e6", "training.epochs=40")
    pushed(quick().root)
    assert [written.exit_code for written in written_in(quick().root)] == [1]


def test_a_result_whose_command_means_another_model_is_left_out(quick: Quick) -> None:
    told(quick)
    told(quick, "seed=1")
    (path,) = (
        p for p in (quick().root / "results" / NAME).glob("*.json") if '"seed": 1' in p.read_text()
    )
    row = json.loads(path.read_text())
    row["overrides"].append("method.lr=0.5")
    del row["digest"]  # a row from before digests, else its change is damage
    path.write_text(json.dumps(row))
    said = pushed(quick().root)
    assert len(said) == 1 and f"{NAME}/{path.stem} is left out" in said[0] and "run it again" in said[0]
    assert len(files(quick().root)) == 1


def test_a_run_that_does_not_start_is_not_counted(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    told(quick)
    monkeypatch.setenv("WANDB_TAGS", "a" * 65)  # the client takes 64 characters
    said: list[str] = []
    assert push(NAME, quick().root, plan_of(*ON).tracking, said.append) == (1, 0)
    assert len(said) == 1 and "W&B did not start" in said[0]
    assert not files(quick().root)


def test_runs_that_break_off_are_not_counted_and_the_command_fails(
    quick: Quick,
    monkeypatch: pytest.MonkeyPatch,
    small_disk: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in (8, 9):
        told(quick, f"seed={seed}")
    disk = small_disk(1)
    (disk / "filled").write_bytes(bytes(1024 * 1024))
    monkeypatch.setenv("WANDB_DIR", str(disk))
    monkeypatch.setattr("runner.tracking.offline.PATIENCE", 0.2)
    with pytest.raises(UserError, match=f"2 of the 2 results of {NAME} are not tracked.*push again"):
        main(["push", f"paths.root={quick().root}"])
    printed = capsys.readouterr()
    assert printed.out == f"0 runs of {NAME} are tracked\n"
    assert printed.err.count("W&B broke off") == 2


@pytest.mark.parametrize(
    "own", [["tracking.mode=disabled"], ["+tracking.mode=online"], ["tracking=off"]]
)
def test_the_tracking_of_the_command_that_made_a_result_is_not_that_of_the_push(
    quick: Quick, own: list[str]
) -> None:
    run(quick(), [*QUICK, *own])
    assert pushed(quick().root) == []
    (written,) = written_in(quick().root)
    assert "final/test_accuracy" in written.summary


@pytest.mark.parametrize("files_of", ["results/*/matrices/*.json", "store/request/*/request.json"])
def test_a_damaged_file_leaves_the_other_results_to_be_pushed(quick: Quick, files_of: str) -> None:
    for seed in (0, 1):
        told(quick, f"seed={seed}")
    next(quick().root.glob(files_of)).write_text("{")
    said = pushed(quick().root)
    of_matrices = "matrices" in files_of
    assert [("is left out" in line, "is damaged" in line) for line in said] == [
        (True, True)
    ] * of_matrices
    assert len(files(quick().root)) == 2 - of_matrices, "the request decides no score"


def test_curves_that_are_gone_are_named_and_the_scores_are_pushed(quick: Quick) -> None:
    told(quick)
    for path in (quick().root / "store" / "pretrain").iterdir():
        path.rename(path.with_name(f"{path.name}.damaged"))
    (said,) = pushed(quick().root)
    assert "the curves of the original model" in said and "no longer in the store" in said
    (written,) = written_in(quick().root)
    assert "final/test_accuracy" in written.summary and not written.curve("pretrain/loss")
    assert written.curve("unlearn/loss")


def test_the_command_pushes_and_refuses_what_it_does_not_know(
    quick: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    told(quick)
    main(["push", f"paths.root={quick().root}", "tracking.project=pushed"])
    assert capsys.readouterr().out == f"1 runs of {NAME} are tracked\n"
    (written,) = written_in(quick().root)
    assert written.run.project == "pushed"
    for arguments, words in (
        ([], "push name="),
        (["pull"], "push name="),
        (["push", "tracking=off"], "tracking=off writes nothing"),
        (["push", "tracking.mode=disabled"], "the mode is disabled, which writes nothing"),
        (["push", "name=none", f"paths.root={quick().root}"], "no results are named none"),
    ):
        with pytest.raises(UserError, match=words):
            main(arguments)


def commands() -> list[list[str]]:
    """The command lines of agents, as the client's agent makes them, at both ends of each range."""
    sweep = yaml.safe_load(SWEEP.read_text())
    found = []
    for end in (0, -1):
        args = {}
        for name, each in sweep["parameters"].items():
            values = each.get(
                "values", [each.get("value", each.get("min")), each.get("value", each.get("max"))]
            )
            args[name] = {"value": values[end]}
        values_of = create_sweep_command_args({"args": args})
        command: list[str] = []
        for word in create_sweep_command(sweep["command"]):
            command += values_of[word[2:-1]] if word.startswith("${") else [word]
        found.append(command)
    return found


def test_every_command_of_an_agent_composes_to_a_plan() -> None:
    for command in commands():
        assert command[:3] == ["python", "-m", "runner"]
        plan = Plan.of(*composed(command[3:]))
        assert plan.reference is not None and plan.names["method"] == "finetune"
    assert commands()[0] != commands()[1]


def test_an_agents_run_has_the_agents_id_and_the_score_that_it_minimises(tmp_path: Path) -> None:
    """As an agent starts it, but offline: by its command line and its environment."""
    sweep = yaml.safe_load(SWEEP.read_text())
    (tmp_path / "params.yaml").write_text("wandb_version: 1\nmethod.lr: {value: 0.001}\n")
    agent = {
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_RUN_ID": "agent1",
        "WANDB_PROJECT": "swept",
        "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "params.yaml"),
        "WANDB_MODE": "offline",
        "PYTHONPATH": str(ROOT),
    }
    small = [option for option in QUICK if not option.startswith("tracking")]
    command = [sys.executable, *commands()[0][1:], *small, f"paths.root={tmp_path}"]
    done = subprocess.run(command, env={**os.environ, **agent}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (written,) = written_in(tmp_path)
    assert written.run.run_id == "agent1" and written.run.sweep_id == "sweep1"
    assert written.run.project == "swept"
    assert sweep["metric"]["goal"] == "minimize"
    assert 0 <= written.summary[sweep["metric"]["name"]] <= 1
    assert written.config["method"]["lr"] == written.config["method.lr"] == 0.001


def test_an_agents_run_is_online_unless_told_otherwise(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.tracking.settings import mode_of

    settings = quick(*ON).tracking
    assert mode_of(settings) == "offline"
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    assert mode_of(settings) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode_of(settings) == "offline"
