"""Sweeps: the order of their work, what they print, and local processes that die."""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from data.errors import UserError
from runner import provenance
from runner.compose import BASE
from runner.launch import queue, ray
from runner.launch.lines import TaskLines, duration
from runner.launch.notes import (
    BEGUN,
    DONE,
    LABEL,
    LOG,
    SHARED,
    begin_of,
    fail,
    label_of,
    note,
    noted,
    outcome,
)
from runner.launch.queue import FORGOTTEN, JobState, states, why
from runner.launch.rest import Rest
from runner.launch.slurm import waves
from runner.launch.stored import note_stored, stored
from runner.launch.task import Shared, Task, cells, labels, left
from runner.signals import Ended
from tests.conftest import QUICK, digits_of, plan_of, result_of, results_in
from tests.forked import fresh, run_module, start_module

LOCAL = ["hydra/launcher=local", "hydra.launcher.workers=2"]


def check_relative_paths(folder: Path, *launcher: str, **environment: str) -> None:
    """A sweep of a folder reads a file and writes results by paths from that folder."""
    (folder / "rows.txt").write_text("\n".join(map(str, range(20))))
    options = [*QUICK, "evaluation=quick", "scenario=given_rows", "scenario.file=rows.txt", "seed=0,1"]
    command = ["-m", *options, "paths.root=out", *launcher]
    done = run_module("runner", *command, cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    assert len(results_in(folder / "out", "digits_small_cnn_given_rows")) == 2
    assert "finetune" in done.stdout
    assert not [log for log in folder.glob(f"out/sweeps/*/*/*/{LOG}") if "hydra.cc" in log.read_text()]


def task(place: str, *after: str, shared: bool = False, folder: Path = Path()) -> Task:
    return Task(place, "seed=0", 0, (), folder, Shared(None) if shared else None, frozenset(after))


# Labels, notes and lines


@pytest.mark.parametrize(
    ("jobs", "wanted"),
    [
        ([["a=1", "b=2"], ["a=1", "b=3"]], ["b=2", "b=3"]),
        ([["a=1", "b=2", "c=1"], ["a=2", "b=2", "c=2"]], ["a=1 c=1", "a=2 c=2"]),
        ([["a=1", "b=2"]], ["the run"]),
    ],
)
def test_a_cell_is_called_by_what_distinguishes_it(jobs: list[list[str]], wanted: list[str]) -> None:
    assert labels(jobs) == wanted


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_folder_says_how_its_cell_stands(tmp_path: Path) -> None:
    assert outcome(tmp_path) is None and outcome(tmp_path / "absent") is None
    with noted(tmp_path):
        begin = begin_of(tmp_path)
        assert begin is not None and begin.process == os.getpid()
        assert outcome(tmp_path) is None
    done = outcome(tmp_path)
    assert done is not None and done.failure is None and 0 <= done.seconds < 10
    with noted(tmp_path):
        assert outcome(tmp_path) is None, "a cell that begins again has not ended"
        raise OSError(28, "No space left on device")
    failed = outcome(tmp_path)
    assert failed is not None and failed.failure is not None and "No space left" in failed.failure
    assert not (tmp_path / DONE).exists()


def test_a_cell_that_a_signal_ends_says_so(tmp_path: Path) -> None:
    with pytest.raises(Ended), noted(tmp_path):
        raise Ended(signal.SIGTERM)
    end = outcome(tmp_path)
    assert end is not None and str(end.failure).startswith("ended by SIGTERM: finished stages and")
    assert end.stopped


def test_lines_tell_the_time_and_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 30.0, 60.0])  # of the sweep and of the first task, and both ends
    monkeypatch.setattr(time, "monotonic", clock.__next__)
    tasks = [task(f"{place}/2", folder=tmp_path / str(place)) for place in (1, 2)]
    for each in tasks:
        each.folder.mkdir()
    note(tasks[0].folder, DONE, "12.4")
    lines = TaskLines(tasks, Rest(tasks, {}))
    lines.begun(tasks[0])
    lines.ended(tasks[0])
    log = tasks[1].folder / LOG
    log.write_text("some output")
    fail(tasks[1].folder, "no space\n")
    lines.ended(tasks[1])
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] seed=0: begun",
        "[1/2] seed=0: done in 12 s; 1 of 2 ended",
        f"[2/2] seed=0: failed: no space (log: {log}); all 2 ended, 1 failed, in 1 min 0 s",
    ]


def test_cells_come_in_one_wave_after_the_trainings_that_they_share() -> None:
    first, second = task("shared 1/2", shared=True), task("shared 2/2", "shared 1/2", shared=True)
    waiting, free = task("1/2", "shared 2/2"), task("2/2")
    assert waves([first, second, waiting, free]) == [[first], [second], [waiting, free]]
    assert waves([free]) == [[free]]


# Slurm's words


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make programs of Slurm that print a text, and end with an exit code."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def make(name: str, text: str = "", code: int = 0) -> None:
        file, script = tmp_path / name, tmp_path / f"{name}.txt"
        script.write_text(text)
        file.write_text(f"#!/bin/sh\ncat {script} >&{1 if code == 0 else 2}\nexit {code}\n")
        file.chmod(0o755)

    return make


def test_the_tasks_of_an_array_that_wait_stand_in_one_line(program: Callable[..., None]) -> None:
    job = "JobId={} ArrayJobId=7 ArrayTaskId={} JobName=unlearn JobState={} Reason={} ExitCode={}\n"
    lines = [job.format(7, "3-4,9%2", "PENDING", "Resources", "0:0")]
    lines.append(job.format(8, 0, "FAILED", "NonZeroExitCode", "1:0"))
    program("scontrol", "".join(lines))
    waits = JobState("PENDING", "Resources", "0:0")
    failed = JobState("FAILED", "NonZeroExitCode", "1:0")
    assert states("7") == {"7_3": waits, "7_4": waits, "7_9": waits, "7_0": failed}
    program("scontrol", "JobId=5 JobName=unlearn JobState=RUNNING Reason=None ExitCode=0:0\n")
    assert states("5") == {"5": JobState("RUNNING")}


def test_squeue_is_asked_where_scontrol_is_refused(program: Callable[..., None]) -> None:
    program("scontrol", "Access denied", code=1)
    program("squeue", "7_0 RUNNING None\n7_1 PENDING Resources\n")
    assert states("7") == {"7_0": JobState("RUNNING"), "7_1": JobState("PENDING", "Resources")}


def test_no_answer_is_no_news_and_an_unknown_job_is_forgotten(program: Callable[..., None]) -> None:
    program("scontrol", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    program("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert states("7") is None
    program("scontrol", "slurm_load_jobs error: Invalid job id specified", code=1)
    assert states("7") == {}


def test_the_largest_array_is_the_clusters(program: Callable[..., None]) -> None:
    program("scontrol", "MaxArraySize            = 501\nMaxDBDMsgs              = 20004\n")
    assert queue.largest_array() == 501


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (JobState("TIMEOUT"), "time limit of 90 min: the same command goes on from what is stored"),
        (JobState("OUT_OF_MEMORY"), "killed for its memory: raise hydra.launcher.mem_gb"),
        (JobState("NODE_FAIL"), "lost its node"),
        (JobState("CANCELLED", "None", "0:15"), "cancelled or killed by somebody"),
        (JobState("FAILED", "None", "3:0"), "ended with exit code 3"),
        (
            JobState("FAILED", "None", "0:9"),
            "killed by signal 9, as the system does when the memory is full",
        ),
        (JobState("FAILED", "None", "0:11"), "killed by signal 11"),
        (JobState("FAILED", "NonZeroExitCode", "137:0"), "killed by signal 9, as the system does"),
        (JobState("FAILED", "NonZeroExitCode", "139:0"), "killed by signal 11"),
        (JobState("COMPLETED"), "ended without a word"),
        (FORGOTTEN, "no longer known to Slurm"),
    ],
)
def test_a_dead_job_has_one_sentence(state: JobState, words: str) -> None:
    sentence = why("7_1", state, 90, log="slurmstepd: error: *** STEP 7.0 ON node CANCELLED ***")
    assert sentence.startswith("Slurm's job 7_1 ") and words in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    "log",
    [
        "slurmstepd-node: error: StepId=7.0 exceeded memory limit (1460649984 > 1073741824)",
        "slurmstepd: error: Exceeded job memory limit",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.",
        "slurmstepd: error: Detected 1 oom-kill event(s) in step 7.batch cgroup.",
    ],
)
@pytest.mark.parametrize(
    "state", [JobState("FAILED", "None", "137:0"), JobState("FAILED", "None", "0:9"), FORGOTTEN]
)
def test_a_log_tells_that_a_job_was_killed_for_its_memory(state: JobState, log: str) -> None:
    sentence = why("7_1", state, 90, log=f"begun\n{log}\nsrun: error: node: task 0: Killed\n")
    assert sentence == "Slurm's job 7_1 was killed for its memory: raise hydra.launcher.mem_gb"


def test_a_log_tells_that_a_job_met_its_limit_before_it_began_a_cell() -> None:
    log = "submitit INFO - Job not requeued because: timed-out too many times.\n"
    assert "7_1 ran into its time limit of 90 min: " in why("7_1", JobState("COMPLETED"), 90, log)


# Processes of this machine


def begun(root: Path, label: str, other_than: int = 0) -> int:
    """Return the id of the process that has begun the cell of this label."""
    deadline = time.monotonic() + 300
    while True:
        for path in root.glob(f"sweeps/*/*/*/{BEGUN}"):
            process = int(path.read_text().split()[1])
            if (path.parent / LABEL).read_text() == label and process != other_than:
                return process
        assert time.monotonic() < deadline
        time.sleep(0.05)


# The second cell trains for some seconds, so that a kill meets it.
SLOW = ["-m", *QUICK, "evaluation=quick", "method=finetune", "training.epochs=1,400,2,3"]


def test_a_killed_process_takes_its_cell_alone_which_is_tried_again(tmp_path: Path) -> None:
    root, err = tmp_path / "local", tmp_path / "err"
    command = [*SLOW, *LOCAL, f"paths.root={root}"]
    process = start_module("runner", *command, out=tmp_path / "out", err=err)
    os.kill(begun(root, "training.epochs=400"), signal.SIGKILL)
    process.join()
    said = err.read_text()
    assert process.exitcode == 0, said
    assert "[2/4] training.epochs=400: its process was killed by SIGKILL" in said
    assert "it is tried once more, alone, after the others" in said and "Traceback" not in said
    ends = re.findall(r"^\[(\d)/4\] .*done in", said, re.MULTILINE)
    assert sorted(ends) == ["1", "2", "3", "4"] and ends[-1] == "2"
    basic = tmp_path / "serial"
    assert run_module("runner", *SLOW, f"paths.root={basic}").returncode == 0
    assert digits_of(root) == digits_of(basic)


def test_a_cell_whose_process_dies_twice_fails_with_its_reason_and_log(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    process = start_module("runner", *SLOW, *LOCAL, f"paths.root={tmp_path}", out=out, err=err)
    first = begun(tmp_path, "training.epochs=400")
    os.kill(first, signal.SIGKILL)
    os.kill(begun(tmp_path, "training.epochs=400", other_than=first), signal.SIGKILL)
    process.join()
    assert process.exitcode == 1
    assert "epochs=3" in out.read_text(), "the table of the others"
    said = err.read_text()
    assert "1 of 4 cells of the sweep failed:" in said
    (log,) = tmp_path.glob(f"sweeps/*/*/1/{LOG}")
    assert "training.epochs=400: its process was killed by SIGKILL" in said and str(log) in said
    assert "the same command makes what is missing: python -m runner -m" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_ends_its_processes(tmp_path: Path, number: int) -> None:
    command = ["-m", *QUICK, "evaluation=quick", "training.epochs=100000", "seed=0,1,2", *LOCAL]
    err = tmp_path / "err"
    process = start_module("runner", *command, f"paths.root={tmp_path}", out=tmp_path / "out", err=err)
    workers = [begun(tmp_path, f"seed={seed}") for seed in (0, 1)]
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 130
    assert "interrupted: 3 of 3 had not ended; finished stages are kept" in err.read_text()
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_a_sweep_pretrains_once_and_no_process_waits_for_another(tmp_path: Path) -> None:
    command = ["-m", *QUICK, "method=finetune,random_labels", "seed=0,1"]
    local, basic = tmp_path / "local", tmp_path / "serial"
    done = fresh("-m", "runner", *command, *LOCAL, f"paths.root={local}")
    assert done.returncode == 0, done.stderr
    assert "[shared 1/4] original, seed=0: done in" in done.stderr
    assert "[shared 4/4] retrained model, seed=1: done in" in done.stderr
    assert "[4/4] method=random_labels seed=1: done in" in done.stderr
    labels = {label_of(folder) for folder in local.glob(f"sweeps/*/*/{SHARED}/*")}
    assert labels == {
        f"{made}, seed={seed}" for made in ("original", "retrained model") for seed in (0, 1)
    }
    assert len(list((local / "store" / "pretrain").glob("[!.]*"))) == 2
    for log in local.glob(f"sweeps/*/*/*/{LOG}"):
        assert not re.search("another process that makes (pretrain|unlearn)", log.read_text())
    assert run_module("runner", *command, f"paths.root={basic}").returncode == 0
    assert digits_of(local) == digits_of(basic)


@pytest.mark.parametrize(("confirm", "waits"), [(True, False), (False, True)])
def test_a_retrained_model_waits_for_the_original_to_know_its_seconds(
    tmp_path: Path, confirm: bool, waits: bool
) -> None:
    options = [*QUICK, f"evaluation.confirm={confirm}", "evaluation.references=1"]
    command = ["-m", *options, "method=finetune,random_labels", f"paths.root={tmp_path}"]
    done = run_module("runner", *command, *LOCAL)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^\[shared (\d)/2\] .*: (begun|done)", done.stderr, re.MULTILINE)
    assert (told.index(("1", "done")) < told.index(("2", "begun"))) == waits


def test_relative_paths_are_those_of_where_a_sweep_began(tmp_path: Path) -> None:
    check_relative_paths(tmp_path, *LOCAL)


def test_cells_of_the_same_command_and_commit_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result stands for its cell if nothing could change it, and what it came from is stored. Of the
    results of other commands no more than the command is read."""
    here = {"commit": "0" * 40, "dirty": False}
    monkeypatch.setattr(provenance, "code", lambda: here)
    command = [*QUICK, "evaluation=quick", f"paths.root={tmp_path}"]
    for seed in (0, 1):
        result_of(plan_of(*command, f"seed={seed}"), *command, f"seed={seed}")
    with initialize_config_module("conf", **BASE):
        config = compose("config", command, return_hydra_config=True)
        config.hydra.sweep.dir = str(tmp_path / "sweep")
    jobs = [[*command, f"seed={seed}"] for seed in (0, 1, 2)]

    def missing(jobs: list[list[str]] = jobs) -> list[int]:
        return [number for number, job in enumerate(jobs) if tuple(job) not in stored(config, jobs)]

    capsys.readouterr()
    assert missing() == [2]
    assert missing([[*command, "seed=0", "evaluation=standard"]]) == [0], "another command"
    (row,) = [path for path in (tmp_path / "results").glob("*/*.json") if '"seed=1"' in path.read_text()]
    sound = row.read_text()
    row.write_text(sound.replace('"status": "done"', '"status": "dome"'))
    assert missing(jobs[:1]) == [] and capsys.readouterr().err == "", "it is no cell of this sweep"
    assert missing() == [1, 2] and "left out" in capsys.readouterr().err
    row.write_text(sound)
    note_stored(config, jobs)
    assert [task.number for task in left(cells(config, jobs, 0))] == [2]
    here["commit"] = "1" * 40
    assert missing() == [0, 1, 2]
    note_stored(config, jobs)
    assert len(left(cells(config, jobs, 0))) == 3, "earlier notes of this folder are removed"
    here |= {"commit": "0" * 40, "dirty": True}
    assert missing() == [0, 1, 2]
    here["dirty"] = False
    (result,) = [each for each in results_in(tmp_path) if each.seed == 0]
    stage, key = result.artefacts[0]
    shutil.rmtree(tmp_path / "store" / stage / key)
    assert missing() == [0, 2]


def test_a_sweep_in_one_process_counts_its_cells(tmp_path: Path) -> None:
    done = run_module("runner", "-m", *QUICK, "evaluation=quick", "seed=0,1", f"paths.root={tmp_path}")
    assert re.search(r"^\[1/2\] seed=0: begun$", done.stderr, re.MULTILINE)
    assert re.search(r"^\[1/2\] seed=0: done in \d+ s; 1 of 2 ended, about", done.stderr, re.MULTILINE)
    assert re.search(r"^\[2/2\] seed=1: done in \d+ s; all 2 ended, in", done.stderr, re.MULTILINE)


def test_a_launcher_names_the_extra_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'needs Ray: pip install -e "\.\[ray\]"'):
        ray.module()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("hydra.launcher.workers=0", "hydra.launcher.workers=0: it must be at least 1"),
        ("hydra.launcher.workers=many", "hydra.launcher.workers"),
        ("hydra.launcher.n_jobs=2", "there is no hydra.launcher.n_jobs: hydra.launcher has workers"),
    ],
)
def test_wrong_options_of_a_launcher_end_in_a_sentence(option: str, words: str, tmp_path: Path) -> None:
    done = run_module("runner", "-m", "hydra/launcher=local", option, f"paths.root={tmp_path}")
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
