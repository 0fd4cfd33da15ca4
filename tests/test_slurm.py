"""Sweeps on a real Slurm end in the table of the same sweep in one process, whatever happens to jobs."""

import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext

from runner.compose import BASE, composed
from runner.launch.notes import DONE, LOG, has_begun, note
from runner.launch.notes import NAME as NAME_OF_RESULTS
from runner.launch.slurm import reports
from runner.launch.task import cells
from runner.launch.work import Work
from runner.sweep import TableAfterSweep
from tests.conftest import NAME, QUICK, digits_of, plan_of, result_of, results_in
from tests.forked import Done, run_module, start_module
from tests.slurm import Slurm, missing
from tests.test_launchers import check_relative_paths
from tests.waiting import GO

ALONE = [*QUICK, "evaluation=quick"]  # a cell shares nothing with another one

# What a run says if another one holds the lock of a training.
WAITING = "waiting for another process that makes (pretrain|unlearn)"

SLURM = "hydra/launcher=slurm"

# Shrunk further: four cells, and what they share.
PRESET = ["experiment=paper003_table1", "scale=quick", *QUICK]

# Trainings that pause at each step until `go`: four of 800 steps, and one without an end.
WAITS = [*ALONE, "model._target_=tests.waiting.Waiting"]
DISTURBED = [*WAITS, "training.epochs=200", "+model.pause=0,0.009,0.01,0.5"]
ENDLESS = [*WAITS, "training.epochs=100000", "+model.pause=0.5"]

# Slurm, which looks every 30 seconds, tells a job of this limit 80 to 110 seconds after its start. One
# of 1 minute may come before a busy machine has begun the job.
LIMIT = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=10"]

GOES_ON = "goes on from the state of a killed run"


@dataclass
class Sweep:
    """A sweep in a process of its own."""

    overrides: list[str]
    root: Path
    environment: dict[str, str]

    def start(self, *launcher: str) -> "Sweep":
        """Start the sweep on Slurm."""
        self.root.mkdir()
        options = [SLURM, "hydra.launcher.cpus_per_task=1", *launcher]
        self.process = start_module(
            "runner",
            "-m",
            *self.overrides,
            f"paths.root={self.root}",
            *options,
            out=self.root / "out",
            err=self.root / "err",
            environment={GO: str(self.go), **self.environment},
        )
        return self

    @property
    def go(self) -> Path:
        """The file that ends the waiting of its trainings."""
        return self.root / "go"

    def folder(self, number: int) -> Path:
        """Return the folder of a cell, once a job has begun it."""
        found: list[Path] = []

        def begun() -> bool:
            found[:] = [path for path in self.root.glob(f"sweeps/*/*/{number}") if has_begun(path)]
            return bool(found)

        until(begun)
        return found[0]

    def job(self, number: int) -> str:
        """Return the id of the job that does a cell, once it has begun."""
        place = f"[{number + 1}/"
        pattern = re.compile(rf"^{re.escape(place)}.*begun in Slurm's job (\S+)$", re.MULTILINE)
        until(lambda: pattern.search(self.said) is not None)
        found = pattern.search(self.said)
        assert found is not None
        return found[1]

    @property
    def said(self) -> str:
        """What it has printed on stderr."""
        return (self.root / "err").read_text()

    def end(self) -> Done:
        """Return how the sweep ended."""
        self.process.join(900)
        assert self.process.exitcode is not None, self.said
        assert "Traceback" not in self.said
        return Done(self.process.exitcode, (self.root / "out").read_text(), self.said)

    def local(self, *overrides: str) -> "Sweep":
        """Run the same sweep in one process, with a root of its own; later overrides count."""
        again = Sweep([*self.overrides, *overrides], self.root.with_name(f"{self.root.name}_local"), {})
        run_module("runner", "-m", *again.overrides, f"paths.root={again.root}")
        return again


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_every_table_of_a_sweep_that_goes_on_alone_has_a_command(tmp_path: Path) -> None:
    """With the experiment that makes it, and the folder of the user's own that holds the experiment."""
    (tmp_path / "experiment").mkdir()
    for name in ("mine", "other"):
        text = f"# @package _global_\nname: table_of_{name}\n"
        (tmp_path / "experiment" / f"{name}.yaml").write_text(text)
    given = [f"hydra.searchpath=[file://{tmp_path}]", f"paths.root={tmp_path}"]
    with initialize_config_module("conf", **BASE):
        config = compose("config", given, return_hydra_config=True)
        work = Work(HydraContext(GlobalHydra.instance().config_loader(), Callbacks()), config)
        jobs = [[f"experiment={name}", f"seed={n}"] for name in ("other", "mine") for n in (0, 1)]
        commands = [shlex.split(each) for each in reports(work, cells(config, jobs, 0))]
    program = ["python", "-m", "runner.report", given[0]]
    assert commands == [
        [*program, f"experiment={name}", f"name=table_of_{name}"] for name in ("mine", "other")
    ]
    assert composed(commands[0][3:])[0].name == "table_of_mine"


@pytest.mark.parametrize("ended", [True, False])
def test_a_sweep_without_a_job_to_wait_for_prints_its_table(
    tmp_path: Path, ended: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """With wait=false, too, if every cell was stored; not if one goes on."""
    plan = plan_of(*ALONE, f"paths.root={tmp_path}")
    result_of(plan)
    given = [*ALONE, f"paths.root={tmp_path}", SLURM, "hydra.launcher.wait=false"]
    with initialize_config_module("conf", **BASE):
        config = compose("config", given, return_hydra_config=True)
        config.hydra.sweep.dir = str(tmp_path / "sweep")
    found = cells(config, [["seed=0"], ["seed=1"]], 0)
    note(found[0].folder, NAME_OF_RESULTS, plan.name)
    for cell in found if ended else found[:1]:
        note(cell.folder, DONE, "0")
    capsys.readouterr()
    TableAfterSweep().on_multirun_end(config)
    assert ("finetune" in capsys.readouterr().out) == ended


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    with Slurm(tmp_path / "slurm") as running:
        yield running


@pytest.mark.cluster
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_sweeps_on_slurm(slurm: Slurm, tmp_path: Path, subtests: pytest.Subtests) -> None:
    """The sweeps go on side by side, since they wait most of their time."""
    environment = {"SLURM_CONF": str(slurm.file)}

    def sweep(name: str, *overrides: str) -> Sweep:
        return Sweep(list(overrides), tmp_path / name, environment)

    # in one array: an undisturbed cell, one killed, one queued again, and one that meets its limit twice
    disturbed = sweep("disturbed", *DISTURBED).start(*LIMIT)
    late = sweep("late", *ENDLESS).start(*LIMIT, "hydra.launcher.max_num_timeout=0")
    disturb(slurm, disturbed)
    preset = sweep("preset", *PRESET).start()
    several = sweep("several", *ALONE, "method.epochs=20", "method.lr=0.01,1e6,0.02,0.03").start(
        "hydra.launcher.cells_per_job=3"
    )
    left = sweep("left", *ALONE, "seed=0,1").start("hydra.launcher.wait=false")
    stopped = sweep("stopped", *ENDLESS, "seed=0,1").start()
    ended = sweep("ended", *ENDLESS).start()
    large = sweep("large", *ALONE, "model.widths=[4,8],[4096,8192]").start("hydra.launcher.mem_gb=1")

    let_go(slurm, disturbed)
    (tmp_path / "relative").mkdir()
    refused = sweep("refused", *ALONE, "seed=0,1")
    checks: dict[str, Callable[[], None]] = {
        "Ctrl-C cancels the array": lambda: check_interrupted(slurm, stopped, signal.SIGINT, number=2),
        "SIGTERM cancels a job": lambda: check_interrupted(slurm, ended, signal.SIGTERM, number=1),
        "the array of a preset": lambda: check_preset(preset),
        "several cells a job": lambda: check_several(slurm, several),
        "wait=false": lambda: check_left(slurm, left),
        "a refusal": lambda: check_refusals(refused, tmp_path),
        "relative paths": lambda: check_relative_paths(tmp_path / "relative", SLURM, **environment),
        "too little memory": lambda: check_memory(large),
        "a time limit met too often": lambda: check_late(late),
        "a kill, a requeue and a time limit met twice": lambda: check_disturbed(slurm, disturbed),
    }
    for name, check in checks.items():
        with subtests.test(name):
            check()
    until(lambda: slurm.queue() == [])


def disturb(slurm: Slurm, sweep: Sweep) -> None:
    """Kill a job, and queue another one again."""
    slurm.run("scancel", "--signal=KILL", sweep.job(1))
    job = sweep.job(2)
    slurm.run("scontrol", "requeue", job)
    until(lambda: waits(slurm, job))
    start(slurm, job)


def let_go(slurm: Slurm, sweep: Sweep) -> None:
    """Let a training go that has met its limit twice, and went on from its state."""
    job = sweep.job(3)

    def has_met_it_twice() -> bool:
        if waits(slurm, job):
            start(slurm, job)
        return log_of(sweep, 3).count(GOES_ON) == 2

    until(has_met_it_twice)
    sweep.go.touch()


def waits(slurm: Slurm, job: str) -> bool:
    """Return whether a job is in the queue."""
    return "JobState=PENDING" in slurm.run("scontrol", "show", "job", job)


def start(slurm: Slurm, job: str) -> None:
    """Start a job that was queued again, which Slurm would let wait for two minutes."""
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def log_of(sweep: Sweep, number: int) -> str:
    """Return what the job of a cell has printed."""
    return (sweep.folder(number) / LOG).read_text()


def check_disturbed(slurm: Slurm, sweep: Sweep) -> None:
    done = sweep.end()
    assert done.returncode == 1
    assert "1 of 4 cells of the sweep failed:" in done.stderr
    killed = sweep.job(1)
    assert f"model.pause=0.009: Slurm's job {killed} was cancelled or killed" in done.stderr
    assert f"(log: {sweep.folder(1) / LOG})" in done.stderr and "submitit" in log_of(sweep, 1)
    assert re.search("the same command makes what is missing: .*python -m runner -m", done.stderr)
    for number, least in ((2, 1), (3, 2)):
        shown = slurm.run("scontrol", "show", "job", sweep.job(number))
        restarts = [int(found) for found in re.findall(r"Restarts=(\d+)", shown)]
        assert len(restarts) == 1 and restarts[0] >= least
    again = run_module("runner", "-m", *sweep.overrides, f"paths.root={sweep.root}")
    assert again.returncode == 0, again.stderr
    assert digits_of(sweep.root) == digits_of(sweep.local().root)


def check_late(sweep: Sweep) -> None:
    done = sweep.end()
    assert done.returncode == 1 and "1 of 1 cells of the sweep failed:" in done.stderr
    assert "ran into its time limit" in done.stderr


def check_interrupted(slurm: Slurm, sweep: Sweep, number_of_signal: int, number: int) -> None:
    for cell in range(number):
        sweep.job(cell)
    array = sweep.job(0).partition("_")[0]
    assert sweep.process.pid is not None
    os.kill(sweep.process.pid, number_of_signal)
    done = sweep.end()
    assert done.returncode == 130
    assert f"interrupted: cancelled Slurm's jobs {array}; finished stages are kept" in done.stderr
    until(lambda: not [job for job in slurm.queue() if job.partition("_")[0] == array])


def check_preset(sweep: Sweep) -> None:
    """What its cells share is made first, so that none waits for another one."""
    done = sweep.end()
    assert done.returncode == 0, done.stderr
    name = "paper003_table1_quick"
    assert digits_of(sweep.root, name) == digits_of(sweep.local().root, name)
    assert "dual_phase_ascent" in done.stdout
    assert "[shared 1/2] original, seed=0: done in" in done.stderr
    assert "[4/4] variant=uniform_labels: done in" in done.stderr
    logs = [path.read_text() for path in sweep.root.glob("sweeps/*/*/slurm/*/*_log.out")]
    assert len(logs) == 6 and not re.search(WAITING, "".join(logs))


def check_several(slurm: Slurm, sweep: Sweep) -> None:
    """A cell that fails leaves the others of its job alone, and its job ends non-zero."""
    done = sweep.end()
    assert done.returncode == 1 and "1 of 4 cells of the sweep failed:" in done.stderr
    assert "method.lr=1000000.0: " in done.stderr and "the loss became" in done.stderr
    assert sweep.job(0) == sweep.job(1) == sweep.job(2) != sweep.job(3)
    jobs = [("scontrol", "show", "job", sweep.job(number)) for number in (0, 3)]
    until(lambda: "JobState=FAILED" in slurm.run(*jobs[0]))  # it ends a moment after its last note
    assert "ExitCode=1:0" in slurm.run(*jobs[0]) and "ExitCode=0:0" in slurm.run(*jobs[1])
    assert digits_of(sweep.root) == digits_of(sweep.local().root)


def check_left(slurm: Slurm, sweep: Sweep) -> None:
    done = sweep.end()
    assert done.returncode == 0 and done.stdout == ""
    found = re.search(r"^state: squeue -j (\d+)$", done.stderr, re.MULTILINE)
    assert found is not None and "scancel " + found[1] in done.stderr
    assert f"python -m runner.report paths.root={sweep.root} name={NAME}" in done.stderr
    until(lambda: not [job for job in slurm.queue() if job.partition("_")[0] == found[1]])
    report = run_module("runner.report", f"paths.root={sweep.root}", f"name={NAME}")
    assert report.returncode == 0 and "finetune" in report.stdout
    assert digits_of(sweep.root) == digits_of(sweep.local().root)


def check_memory(sweep: Sweep) -> None:
    """A convolution of 300 million weights takes more than 1 GB; the other cell is not disturbed."""
    done = sweep.end()
    assert done.returncode == 1 and "1 of 2 cells of the sweep failed:" in done.stderr
    killed = f"model.widths=[4096,8192]: Slurm's job {sweep.job(1)} was killed for its memory"
    assert f"{killed}: raise hydra.launcher.mem_gb (log: " in done.stderr
    assert len(results_in(sweep.root)) == 1


def check_refusals(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep.start("hydra.launcher.partition=nowhere").end()
    assert done.returncode == 1
    assert "invalid partition specified: nowhere" in done.stderr
    assert "hydra.launcher.partition" in done.stderr
    absent = Sweep(sweep.overrides, tmp_path / "absent", {"PATH": str(tmp_path)}).start().end()
    assert absent.returncode == 1 and "there is no Slurm here" in absent.stderr
