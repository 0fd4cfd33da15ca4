"""Figures draw the rows' own numbers; published numbers stand beside ours."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import UserError
from runner.figure import draw, main
from runner.pipeline import run
from runner.plan import Plan
from runner.published import FOLDER, read
from runner.report import Report
from runner.results import Results, Row
from tests.conftest import QUICK, options

Quick = Callable[..., Plan]


@pytest.fixture
def rows(quick: Quick) -> list[Row]:
    for seed in (0, 1):
        for fraction in (0.1, 0.3):
            scenario = ["scenario=random", f"scenario.fraction={fraction}"]
            run(quick("method=random_labels", *scenario, f"seed={seed}", "name=drawn"))
    return Results(quick().root / "results").rows("drawn")


def test_a_point_is_the_mean_over_seeds_at_its_cost(rows: list[Row]) -> None:
    report = Report(rows, ["test_accuracy"])
    (axes,) = draw(report, "gradient_examples", ["test_accuracy"]).axes
    found = {tuple(point) for line in axes.containers for point in line.lines[0].get_xydata()}  # type: ignore[attr-defined]
    wanted = set()
    for cell in {row.cells["unlearned"] for row in rows}:
        mine = [row for row in rows if row.cells["unlearned"] == cell]
        score = sum(row.scores["unlearned"]["test_accuracy"] for row in mine) / len(mine)
        wanted.add((mine[0].costs["unlearned"]["gradient_examples"], score))
    assert {(round(x), round(y, 9)) for x, y in found} == {(round(x), round(y, 9)) for x, y in wanted}


def test_an_option_can_be_the_axis(rows: list[Row]) -> None:
    (axes,) = draw(Report(rows, []), "scenario.fraction", ["test_accuracy"]).axes
    at = {line.lines[0].get_xdata()[0] for line in axes.containers}  # type: ignore[attr-defined]
    assert at == {0.1, 0.3}


def test_what_no_run_has_is_refused(rows: list[Row]) -> None:
    report = Report(rows, [])
    with pytest.raises(UserError, match=r"figure\.x=nothing is no number of any run"):
        draw(report, "nothing", ["test_accuracy"])
    with pytest.raises(UserError, match=r"figure\.y names nothing"):
        draw(report, "seconds", ["nothing"])


def test_the_command_writes_a_picture(rows: list[Row], quick: Quick) -> None:
    main([*QUICK, f"paths.root={quick().root}", "name=drawn", "figure.y=[test_accuracy]"])
    assert (quick().root / "figures" / "drawn.png").read_bytes().startswith(b"\x89PNG")
    assert (quick().root / "figures" / "drawn.svg").exists()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("paper*.csv")), ids=lambda path: path.stem)
def test_published_lines_are_lines_of_ours(path: Path) -> None:
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines and {line["line"] for line in lines} <= set(options("line"))
    assert {line["role"] for line in lines} <= {"original", "unlearned", "repaired"}
    assert all(0 <= value <= 1 for value in read(path.stem).values())


def test_ours_and_theirs_stand_in_one_cell(quick: Quick) -> None:
    """On digits and small: the numbers differ, their places must not."""
    preset = ["line=amnesiac", "recorder=[batch_updates]", "repair=epochs", "name=beside"]
    row = run(quick(*preset))
    assert row is not None
    report = Report([row], ["test_forget_accuracy"], published=read("paper004_table1"))
    (line,) = [text for text in report.markdown().splitlines() if text.startswith("| amnesiac ")][-1:]
    unlearned = row.scores["unlearned"]["test_forget_accuracy"]
    repaired = row.scores["repaired"]["test_retain_accuracy"]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3] == f"{unlearned:.3f} (0)" and cells[6] == f"{repaired:.3f} (0.98)"
    (absent,) = [text for text in report.markdown().splitlines() if text.startswith("| layer_p10 ")]
    assert "— (0.07)" in absent


def test_a_table_that_was_not_published_is_refused() -> None:
    with pytest.raises(UserError, match=r"table\.published=nowhere is not in"):
        read("nowhere")
