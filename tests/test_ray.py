"""Sweeps on a Ray of this machine end in the table of the same sweep in one process."""

import os
import re
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from runner.launch.notes import LOG
from tests.conftest import QUICK, digits_of
from tests.forked import run_module, start_module
from tests.test_launchers import SLOW, begun, check_relative_paths

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason='Ray is not installed: pip install -e ".[ray]"'
)

RAY = "hydra/launcher=ray"

# Ray gives cells the lowest priority but four, at which they would wait for the other tests.
PRIORITY = {"RAY_worker_niceness": "0"}


def test_a_killed_process_takes_its_cell_alone_which_begins_again(tmp_path: Path) -> None:
    root, err = tmp_path / "ray", tmp_path / "err"
    command = [*SLOW, RAY, f"paths.root={root}"]
    process = start_module("runner", *command, out=tmp_path / "out", err=err, environment=PRIORITY)
    os.kill(begun(root, "training.epochs=400"), signal.SIGKILL)
    process.join()
    said = err.read_text()
    assert process.exitcode == 0, said
    assert (
        said.count("[2/4] training.epochs=400: its process died; it begins again") == 1
        and "Traceback" not in said
    )
    ends = re.findall(r"^\[(\d)/4\] .*done in", said, re.MULTILINE)
    assert sorted(ends) == ["1", "2", "3", "4"]
    assert said.count(": begun\n") == 4
    serial = tmp_path / "serial"
    assert run_module("runner", *SLOW, f"paths.root={serial}").returncode == 0
    assert digits_of(root) == digits_of(serial)


def test_cells_wait_for_the_training_that_they_share(tmp_path: Path) -> None:
    command = ["-m", *QUICK, "evaluation=quick", "method=finetune,random_labels", RAY]
    done = run_module("runner", *command, f"paths.root={tmp_path}", **PRIORITY)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^\[(.*?)\] .*: (begun|done)", done.stderr, re.MULTILINE)
    assert told[:2] == [("shared 1/1", "begun"), ("shared 1/1", "done")]
    assert {place for place, word in told[2:] if word == "done"} == {"1/2", "2/2"}
    assert len(list((tmp_path / "store" / "pretrain").glob("[!.]*"))) == 1


def test_relative_paths_are_those_of_where_a_sweep_began(tmp_path: Path) -> None:
    check_relative_paths(tmp_path, RAY, **PRIORITY)


def test_a_cell_whose_process_dies_too_often_fails_with_its_reason_and_log(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    command = [*SLOW, RAY, "hydra.launcher.max_retries=0", f"paths.root={tmp_path}"]
    process = start_module("runner", *command, out=out, err=err, environment=PRIORITY)
    os.kill(begun(tmp_path, "training.epochs=400"), signal.SIGKILL)
    process.join()
    assert process.exitcode == 1
    assert "epochs=3" in out.read_text(), "the table of the others"
    (log,) = tmp_path.glob(f"sweeps/*/*/1/{LOG}")
    said = err.read_text()
    told = said.partition("1 of 4 cells of the sweep failed:")[2]
    assert f"training.epochs=400: its process died (log: {log})" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_ends_its_processes(tmp_path: Path, number: int) -> None:
    command = ["-m", *QUICK, "evaluation=quick", "training.epochs=100000", "seed=0,1", RAY]
    err = tmp_path / "err"
    process = start_module(
        "runner", *command, f"paths.root={tmp_path}", out=tmp_path / "out", err=err, environment=PRIORITY
    )
    worker = begun(tmp_path, "seed=0")
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 130
    assert "interrupted: 2 of 2 had not ended; finished stages are kept" in err.read_text()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists():  # Ray ends it a moment later
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_cell_that_no_machine_has_room_for_is_refused(tmp_path: Path) -> None:
    room = ["hydra.launcher.num_gpus=64", f"paths.root={tmp_path}"]
    done = run_module("runner", "-m", *QUICK, "seed=0,1", RAY, *room, **PRIORITY)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no machine of this Ray has hydra.launcher.num_cpus=1 and num_gpus=64" in done.stderr
