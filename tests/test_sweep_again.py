"""A sweep said again: it makes what is missing, and nothing twice."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from data.errors import UserError
from methods.training.divergence import Diverged
from runner import provenance
from runner.compose import BASE
from runner.launch.notes import (
    LABEL,
    LOG,
    SHARED,
    STAYS,
    fail,
    has_begun,
    link_log,
    note,
    noted,
    outcome,
)
from runner.launch.stored import note_stored, stored
from runner.launch.task import cells, left
from runner.signals import Ended
from runner.state.cells import cells_of
from runner.state.listing import listing
from runner.state.manifest import MANIFEST
from runner.state.standing import standings
from runner.state.states import State
from runner.sweep import missing
from tests.conftest import QUICK, plan_of, result_of, results_in
from tests.forked import run_module
from tests.killing import killed, lost
from tests.test_sweep_state import tree

SWEEP = ["-m", *QUICK, "training.epochs=40", "method=finetune,random_labels", "seed=0,1"]

# Kills of one sweep; the seed of their moments.
KILLS, MOMENTS = 2, 1


def test_a_sweep_that_is_killed_again_and_again_ends_in_the_same_digits(tmp_path: Path) -> None:
    """SIGKILL of all of its processes at random moments. No finished stage is made a second time."""
    found = killed(SWEEP, KILLS, MOMENTS, tmp_path)
    assert (found.results, found.differing) == (4, 0)
    assert found.stages >= 8 and found.twice == 0


def test_a_training_that_is_lost_is_told_from_one_that_goes_on() -> None:
    """Of two killed attempts the first one's steps 3 and 4 are repeated, and all of the second one's."""
    first = {"a": {1: 10.0, 2: 11.0, 3: 12.5, 4: 13.0}, "b": {1: 5.0}}
    second = {"a": {3: 20.0, 4: 21.0, 5: 22.5}}
    assert lost([first, second]) == 13.0 - 11.0
    assert lost([first, second, {}, {"a": {3: 30.0}}]) == 22.5 - 20.0
    assert lost([first]) == 0


def test_plan_true_lists_the_cells_and_writes_nothing(tmp_path: Path) -> None:
    options = [*QUICK, f"paths.root={tmp_path / 'root'}"]
    swept = ["-m", *options, "method=finetune,amnesiac", "seed=0,1"]
    assert run_module("runner", *options, "seed=0").returncode == 0
    before = tree(tmp_path)
    done = run_module("runner", *swept, "plan=true")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == before
    lines = done.stdout.splitlines()
    assert lines[0] == "4 cells: 1 hit, 1 missing, 2 failed"
    assert "hit      method=finetune seed=0" in done.stdout
    assert "missing  method=finetune seed=1  no result; original, finetune" in done.stdout
    assert done.stdout.count("reads a record of the training: add recorder=[batch_updates]") == 2
    (table,) = [line.split() for line in lines if line.startswith("original ")]
    assert table[:3] == ["original", "1", "1"]
    assert re.search(
        r"^left: about \d+ \w+.* of training in one process and ", done.stdout, re.MULTILINE
    )
    assert lines[-1].startswith("make it: python -m runner -m ") and "plan=true" not in lines[-1]
    alone = run_module("runner", *options, "seed=0", "plan=true")
    assert alone.stdout.startswith("1 cell: 1 hit") and "make it" not in alone.stdout
    assert alone.stdout.rstrip().endswith("nothing is left: every cell has its result")
    refused = listing(["-m", *options, "method=finetune,amnesiac", "seed=0"])
    assert refused.endswith("nothing is left: every cell that is not refused has its result")
    assert "make it" not in listing([*options, "method=amnesiac"])
    earlier = listing(["-m", *options, "until=pretrain", "seed=0"])
    assert earlier.endswith("nothing is left: every cell has what it makes until then")
    assert "scores come on top" not in listing([*options, "until=pretrain", "seed=1"])


def test_a_sweep_writes_its_manifest_and_a_report_reads_it(tmp_path: Path) -> None:
    """The cell that is refused is listed with the reason; the report names the command for the rest."""
    options = [*QUICK, "evaluation=quick", f"paths.root={tmp_path}", "name=mine"]
    swept = ["-m", *options, "method=finetune,amnesiac"]
    assert run_module("runner", *swept).returncode == 1
    (path,) = tmp_path.glob(f"sweeps/*/*/{MANIFEST}")
    found = json.loads(path.read_text())
    assert [cell["overrides"][-1] for cell in found["cells"]] == ["method=finetune", "method=amnesiac"]
    assert [cell["name"] for cell in found["cells"]] == ["mine", None]
    assert "add recorder=[batch_updates]" in found["cells"][1]["refused"]
    assert {"commit", "torch", "python", "threads", "device"} <= found["environment"].keys()
    assert found["command"].startswith("python -m runner -m")
    (key,) = [file.stem for file in (tmp_path / "results" / "mine").glob("*.json")]
    assert found["cells"][0]["key"] == key
    told = run_module("runner.report", f"paths.root={tmp_path}", "name=mine")
    assert told.returncode == 0 and told.stdout.endswith("1 cells of its sweeps: 1 done\n")
    assert (tmp_path / "tables" / "mine_manifest.json").is_file()


def test_a_folder_that_is_used_again_forgets_its_earlier_sweep(tmp_path: Path) -> None:
    """Of its cells and of its shared trainings, which may be others now; logs are written anew."""
    with initialize_config_module("conf", **BASE):
        config = compose("config", [*QUICK, f"paths.root={tmp_path}"], return_hydra_config=True)
        config.hydra.sweep.dir = str(tmp_path / "sweep")
    jobs = [["seed=0"]]
    (task,) = cells(config, jobs, 0)
    folders = (task.folder, tmp_path / "sweep" / SHARED / "1")
    for folder in folders:
        with noted(folder):
            link_log(folder, tmp_path / "earlier.out")
    note_stored(config, jobs)
    for folder in folders:
        assert not has_begun(folder) and outcome(folder) is None
        link_log(folder, tmp_path / "now.out")
        assert (folder / LOG).readlink() == tmp_path / "now.out"
    assert left([task]) == [task]


def test_the_commit_of_a_row_is_that_of_the_command_which_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of an earlier commit stay in a row: its command, said at a later one, makes them again."""
    here = {"commit": "0" * 40, "dirty": False}
    monkeypatch.setattr(provenance, "code", lambda: here)
    more, less = ([*QUICK, f"metric=[{metrics}]"] for metrics in ("accuracy,loss", "accuracy"))
    for command, commit, kept in ((more, "1", "1"), (less, "2", "1"), (more, "2", "2")):
        here["commit"] = commit * 40
        result_of(plan_of(*command, f"paths.root={tmp_path}"), *command)
        (found,) = results_in(tmp_path)
        assert found.overrides == more and found.provenance["row"]["commit"] == kept * 40


def test_a_sweep_makes_the_results_again_whose_folder_was_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept under another name, and the table of the command's own has none of them."""
    monkeypatch.setattr(provenance, "code", lambda: {"commit": "0" * 40, "dirty": False})
    command = [*QUICK, "evaluation=quick", f"paths.root={tmp_path}"]
    made = result_of(plan_of(*command), *command)
    with initialize_config_module("conf", **BASE):
        config = compose("config", command, return_hydra_config=True)
    assert [each.key for each in stored(config, [command]).values()] == [made.key]
    (tmp_path / "results" / made.name).rename(tmp_path / "results" / "kept")
    assert not stored(config, [command])


def committed(folder: Path) -> dict[str, str]:
    """Return an environment in which git sees a new checkout without changed files."""
    own = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    subprocess.run([*own, "commit", "--quiet", "--allow-empty", "-m", "a"], check=True)
    return {"GIT_DIR": str(folder / ".git"), "GIT_WORK_TREE": str(folder)}


def test_a_diverged_cell_is_no_work_that_is_left(tmp_path: Path) -> None:
    """The sweep, the listing and the report name it, and no command that would make it."""
    swept = ["-m", *QUICK, "evaluation=quick", "method=finetune,negative_gradient", "method.epochs=3"]
    swept += [f"paths.root={tmp_path}", "method.lr=1e6", "method.clip=null"]
    clean = committed(tmp_path / "checkout")
    assert run_module("runner", *swept, **clean).returncode == 1
    again = run_module("runner", *swept, **clean)
    listed = run_module("runner", *swept, "plan=true", **clean).stdout
    told = run_module("runner.report", f"paths.root={tmp_path}").stdout
    assert again.returncode == 1 and "the loss became" in again.stderr
    for text in (again.stderr, listed, told):
        assert STAYS in text
        assert "python -m runner -m" not in text
    assert re.match(r"2 cells: (1 hit, 1|2) diverged", listed)
    assert "nothing is left" in listed and " ? " not in listed


def diverged(root: Path, *options: str) -> list[str]:
    """Run a command that diverges, and return it."""
    command = [*options, *QUICK, "evaluation=quick", f"paths.root={root}", "training.lr=1e6"]
    command += ["training.optimizer=sgd", "training.clip=null"]
    with pytest.raises(Diverged):
        result_of(plan_of(*command), *command)
    return command


def test_a_diverged_cell_is_left_alone_until_its_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would diverge again; the sweep names it among those that failed."""
    here = {"commit": "0" * 40, "dirty": False}
    monkeypatch.setattr(provenance, "code", lambda: here)
    command = diverged(tmp_path)
    with initialize_config_module("conf", **BASE):
        config = compose("config", command, return_hydra_config=True)
        config.hydra.sweep.dir = str(tmp_path / "sweep")
    note_stored(config, [command])
    (task,) = cells(config, [command], 0)
    (listed,) = standings(cells_of([command]), {})
    assert listed.state is State.diverged and not listed.state.is_left
    end = outcome(task.folder)
    assert left([task]) == [] and end is not None
    assert end.failure is not None and "the loss became nan" in end.failure and end.diverged
    config.device = "cpu:0"  # by its name another device
    assert not stored(config, [command]), "another device may not diverge"
    config.device = None
    assert stored(config, [command])
    here["commit"] = "1" * 40
    assert not stored(config, [command])
    (listed,) = standings(cells_of([command]), {})
    assert listed.state is State.missing and listed.state.is_left, "other code may not diverge"


def test_a_diverged_cell_of_the_users_own_code_or_configuration_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit tells whether they are the same: a sweep tries it again, and the listing says so."""
    monkeypatch.setattr(provenance, "code", lambda: {"commit": "0" * 40, "dirty": False})
    folder = tmp_path / "conf"
    folder.mkdir()
    own = (f"hydra.searchpath=[file://{folder}]", "method._target_=methods.finetune.Finetune")
    for option in own:
        command = diverged(tmp_path, option)
        (listed,) = standings(cells_of([command]), {})
        assert listed.state is State.missing and listed.state.is_left, option


@pytest.mark.parametrize("here", [{"commit": "0" * 40, "dirty": True}, {"commit": None, "dirty": None}])
def test_a_diverged_cell_of_code_that_no_commit_names_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: dict[str, Any]
) -> None:
    """A sweep tries it again, and the listing says so."""
    monkeypatch.setattr(provenance, "code", lambda: here)
    command = diverged(tmp_path)
    with initialize_config_module("conf", **BASE):
        assert not stored(compose("config", command, return_hydra_config=True), [command])
    (listed,) = standings(cells_of([command]), {})
    assert listed.state is State.missing and listed.state.is_left


@pytest.mark.parametrize("done", [True, False])
def test_the_end_of_a_sweep_tells_of_a_cell_that_a_full_disk_keeps_from_noting_its_end(
    small_disk: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    done: bool,
) -> None:
    monkeypatch.setattr(sys, "argv", ["runner", "-m", "seed=0,1"])
    sweep = small_disk(1)
    for number in range(2):
        note(sweep / str(number), LABEL, f"seed={number}")
    fail(sweep / "0", "the loss is too large")
    with noted(sweep / "1"):
        fill(sweep)
        if not done:
            raise UserError("no such class")
    assert outcome(sweep / "1") is None
    said = capsys.readouterr().err
    assert ("No space left on device" if done else "failed: no such class") in said
    assert missing(sweep)[:3] == [
        "2 of 2 cells of the sweep failed:",
        "  seed=0: the loss is too large",
        "  seed=1: it ended without a note in its folder, as on a full disk",
    ]


def test_a_full_disk_does_not_hide_the_signal_that_ends_a_cell(
    small_disk: Callable[[int], Path],
) -> None:
    folder = small_disk(1) / "0"
    with pytest.raises(Ended), noted(folder):
        fill(folder)
        raise Ended(signal.SIGTERM)


def fill(disk: Path) -> None:
    """Write a file until its disk is full."""
    with pytest.raises(OSError), (disk / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
