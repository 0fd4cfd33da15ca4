"""Processes of this machine that do the tasks of a sweep: the idle ones that die, and what is told."""

import signal
from multiprocessing import Pipe
from pathlib import Path

import pytest

from runner.launch.lines import TaskLines
from runner.launch.local import Pool, _serve
from runner.launch.notes import fail, noted, outcome
from runner.launch.rest import Rest
from runner.launch.task import Task
from runner.launch.work import Work
from tests.test_launchers import task


class Idle(Work):
    """Does a task by noting its begin and its end."""

    def __init__(self) -> None:
        """Compose nothing."""

    def __reduce__(self) -> tuple[type["Idle"], tuple[()]]:
        return Idle, ()

    def __call__(self, task: Task) -> None:
        with noted(task.folder):
            pass


def lines_of(*tasks: Task) -> TaskLines:
    return TaskLines(tasks, Rest(tasks, {}))


def test_an_idle_process_that_has_died_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes no task with it: not even one that would not be tried again."""
    made = task("shared 1/1", shared=True, folder=tmp_path / "shared")
    pool = Pool(Idle(), 1)
    (worker,) = pool.workers
    worker.process.kill()
    worker.process.join()
    pool.take([made], lines_of(made))
    pool.run(1)
    pool.end()
    end = outcome(made.folder)
    assert end is not None and end.failure is None
    said = capsys.readouterr().err
    assert "[shared 1/1] seed=0: done in" in said and "killed" not in said


def test_a_task_that_waits_for_its_second_try_has_not_ended(tmp_path: Path) -> None:
    first, second, third = (task(f"{place}/3", folder=tmp_path / str(place)) for place in (1, 2, 3))
    lines = lines_of(first, second, third)
    for each in (first, second):
        lines.begun(each)
    lines.died(first, "its process was killed by SIGKILL")
    lines.ended(second)
    assert lines.left_over() == "2 of 3 had not ended"


def test_the_reason_of_a_failure_is_told_though_there_is_no_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process of a shared training may die before it opens the log."""
    made = task("shared 1/1", shared=True, folder=tmp_path)
    lines = lines_of(made)
    lines.begun(made)
    fail(made.folder, "its process was killed by SIGKILL")
    lines.ended(made)
    assert "seed=0: failed: its process was killed by SIGKILL; all 1 ended" in capsys.readouterr().err


def test_a_process_ends_in_silence_if_its_launcher_has_ended_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the suite hears Ctrl-C
    ours, theirs = Pipe()
    ours.send(task("1", folder=tmp_path))

    class Outlived(Work):
        def __init__(self) -> None:
            """Compose nothing."""

        def __call__(self, task: Task) -> None:
            ours.close()

    _serve(theirs, Outlived())
