"""The time that is left of a sweep, by the costs of missing trainings and by what has ended."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.launch.lines import TaskLines
from runner.launch.notes import DONE, fail, note
from runner.launch.rest import Rest, TimeLeft
from runner.launch.task import Shared, Task
from runner.state.cells import Cell
from runner.state.trainings import Training, trainings
from runner.store import Store
from tests.conftest import QUICK, plan_of
from tests.stores import make_one

# A cell has two trainings: an original of 100 s, and ssd's of 20 s, or finetune's of 30 s.
SECONDS = {"original": 100, "ssd": 20, "finetune": 30}


class Sweep:
    """Cells of a method and a seed, whose trainings are stored by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")
        self.planned: dict[tuple[str, ...], Cell] = {}
        self.number = 0

    def cell(self, method: str, seed: int) -> Task:
        """Return a cell of the sweep."""
        overrides = (
            *QUICK,
            "evaluation=quick",
            f"paths.root={self.root}",
            f"method={method}",
            f"seed={seed}",
        )
        self.planned[overrides] = Cell(overrides, plan_of(*overrides))
        self.number += 1
        return Task(
            str(self.number), f"{method} {seed}", self.number, overrides, self.root / str(self.number)
        )

    def shared(self, cell: Task) -> Task:
        """Return the training of a cell's original as a task of its own."""
        place = f"shared {cell.place}"
        return Task(place, "original", cell.number, cell.overrides, self.root / place, Shared(None))

    def store_all(self, cell: Task, *labels: str) -> None:
        """Store the trainings of a cell with these labels, or all, with what each has taken."""
        for each in self.needs(cell):
            if each.label in (labels or SECONDS) and not each.stored:
                make_one(self.store, *each.wanted, cost_of(SECONDS[each.label]))

    def needs(self, cell: Task) -> list[Training]:
        plan = self.planned[cell.overrides].plan
        assert plan is not None
        return trainings(plan, self.store)


def cost_of(seconds: float) -> Callable[[Path], None]:
    def produce(folder: Path) -> None:
        (folder / "cost.json").write_text(json.dumps({"seconds": seconds}))

    return produce


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_cells_that_are_stored_tell_nothing_of_those_that_train(
    sweep: Sweep, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two cells end in a second each, since another commit has made them; the other two take 120 s."""
    cells = [sweep.cell("ssd", seed) for seed in range(4)]
    for cell in cells[:2]:
        sweep.store_all(cell)
    lines = TaskLines(cells, Rest(cells, sweep.planned))
    for cell in cells[:2]:
        lines.begun(cell)
        clock[0] += 1
        note(cell.folder, DONE, "1")
        lines.ended(cell)
    assert capsys.readouterr().err.splitlines()[-1].endswith("; 2 of 4 ended, about 4 min 0 s left")


def test_beyond_its_trainings_a_cell_takes_what_such_cells_have_taken(
    sweep: Sweep, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first cell trains an original for 100 s, which the second one of its seed does not."""
    first, second, third = (sweep.cell("ssd", 0), sweep.cell("finetune", 0), sweep.cell("ssd", 1))
    rest = Rest(cells := [first, second, third], sweep.planned)
    assert rest.left() == (0, 3, 0), "the store has no training of their kinds"
    lines = TaskLines(cells, rest)
    lines.begun(first)
    sweep.store_all(first)
    note(first.folder, DONE, str(100 + 20 + 7))
    lines.ended(first)
    said = "; 1 of 3 ended, about 2 min 34 s left (1 cell is estimated by others of this sweep)"
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)
    # finetune is not known: it counts 20 as ssd does, and 7 beyond; the third takes 100 + 20 + 7
    assert rest.left() == (20 + 7 + 127, 0, 1)
    rest.begun(second)
    sweep.store_all(second)
    rest.ended(second, 30 + 9)
    assert rest.left() == (120 + 8, 0, 0), "the median of 7 and 9 is 8"
    assert len(cells) == 3


def test_cells_whose_time_is_not_known_are_counted_apart(
    sweep: Sweep, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """The original of seed 0 took 100 s, and so will that of seed 1; no ssd has been made yet."""
    cells = [sweep.cell("ssd", 0), sweep.cell("ssd", 1)]
    tasks = [sweep.shared(cells[0]), *cells, sweep.shared(cells[1])]
    lines = TaskLines(tasks, Rest(tasks, sweep.planned))

    def said(task: Task, cell: Task) -> str:
        lines.begun(task)
        sweep.store_all(cell, "original")
        note(task.folder, DONE, "100")
        lines.ended(task)
        return capsys.readouterr().err.splitlines()[-1]

    known = "; 1 of 4 ended, about 1 min 40 s left (2 cells have no estimate yet)"
    assert said(tasks[0], cells[0]).endswith(known)
    assert said(tasks[3], cells[1]).endswith("; 2 of 4 ended"), "nothing is known of both"


def test_the_time_of_cells_that_take_longer_than_estimated_is_not_told_as_none(
    sweep: Sweep, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.store_all(sweep.cell("ssd", 9))
    failed, late, unknown = sweep.cell("ssd", 0), sweep.cell("ssd", 1), sweep.cell("finetune", 2)
    sweep.store_all(unknown, "original")
    lines = TaskLines(cells := [failed, late, unknown], Rest(cells, sweep.planned))
    lines.begun(failed)
    lines.begun(late)
    clock[0] = 1000
    fail(failed.folder, "no space")
    lines.ended(failed)
    said = "; 1 of 3 ended, 1 failed, 1 cell has no estimate yet"
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)


def test_a_training_that_several_cells_need_counts_once(sweep: Sweep) -> None:
    sweep.store_all(sweep.cell("ssd", 0))
    sweep.store_all(sweep.cell("finetune", 0))
    cells = [sweep.cell("ssd", 1), sweep.cell("finetune", 1)]
    assert Rest(cells, sweep.planned).left() == (100 + 20 + 30, 0, 0)


def test_several_tasks_at_once_take_a_part_but_no_less_than_the_longest(
    sweep: Sweep, clock: list[float]
) -> None:
    sweep.store_all(sweep.cell("ssd", 0))
    cells = [sweep.cell("ssd", seed) for seed in (1, 2, 3)]
    assert Rest(cells, sweep.planned, at_once=2).left() == (180, 0, 0)
    assert Rest(cells, sweep.planned, at_once=8).left() == (120, 0, 0)
    seen = Rest(cells, sweep.planned)
    for cell in cells:
        seen.begun(cell)
    assert seen.left() == (120, 0, 0)
    clock[0] = 50
    assert seen.left() == (70, 0, 0), "they have been at work for 50 s"
    seen.put_aside(cells[0])
    assert seen.left() == (120, 0, 0), "it begins again"
    sweep.store_all(cells[0])
    seen.ended(cells[0], 120)
    assert seen.left() == (70, 0, 0), "the others' last 70 s; its begin was not told again"


def test_a_shared_training_is_no_cell(sweep: Sweep, clock: list[float]) -> None:
    """It took 5 s beyond its training; what cells take beyond theirs is not known yet."""
    sweep.store_all(sweep.cell("ssd", 0))
    cells = [sweep.cell("ssd", 1), sweep.cell("ssd", 2)]
    tasks = [sweep.shared(cells[0]), sweep.shared(cells[1]), *cells]
    rest = Rest(tasks, sweep.planned)
    assert rest.left() == (2 * (100 + 20), 0, 0)
    rest.begun(tasks[0])
    sweep.store_all(cells[0], "original")
    rest.ended(tasks[0], 105)
    assert rest.left() == (105 + 20 + 20, 0, 0)


def test_a_failed_cell_and_one_without_a_plan_tell_nothing(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [sweep.cell("ssd", 0), sweep.cell("ssd", 1)]
    assert Rest(cells, {}).left() == TimeLeft(0, 2, 0)
    lines = TaskLines(cells, Rest(cells, sweep.planned))
    lines.begun(cells[0])
    fail(cells[0].folder, "no space")
    lines.ended(cells[0])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "[1] ssd 0: failed: no space; 1 of 2 ended, 1 failed"
