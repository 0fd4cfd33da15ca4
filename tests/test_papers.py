"""Every number that the papers print has a verdict, by one rule."""

import csv
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import t

from data.errors import UserError
from runner.papers.rules import PrintedCell, Table, VerdictRule, names, rule, table
from runner.papers.text import RESULTS, SCALES, found_runs, of_table, summary
from runner.papers.verdicts import (
    DIFFERS,
    MATCHES,
    NOT_COMPARABLE,
    NOT_RUN,
    ScaleRows,
    agreements,
    judged,
    verdicts,
)
from runner.report import Report, rows
from runner.report.__main__ import main
from runner.report.rows import Row
from runner.report.text import MARKDOWN
from runner.results import Results
from tests.composing import composed_once
from tests.conftest import CONF
from tests.test_report import result

RULE = VerdictRule(level=0.95, fewest=2)


def cell(
    text: str = "0.50", line: str = "amnesiac", metric: str = "test_forget_accuracy"
) -> PrintedCell:
    digits = len(text.partition(".")[2])
    return PrintedCell(line, "unlearned", metric, text, 0.5 * 10**-digits, "mnist", "small_cnn")


def row(value: float, seed: int = 0, line: str = "amnesiac", **changed: str) -> Row:
    about = {
        "variant": line, "dataset": "mnist", "model": "small_cnn", "role": "unlearned",
        "seed": str(seed), "key": "k", "commit": "c", "device": "cpu",
        "overrides": f"experiment=x variant={line} seed={seed} threads=1 paths.root=o",
    }  # fmt: skip
    return Row(**{**about, **changed}, scores={"test_forget_accuracy": value})


def word(cells: list[PrintedCell], found: list[Row], scale: str = "paper", **of: object) -> str:
    (verdict,) = verdicts(Table("x", cells, **of), [ScaleRows(scale, found)])  # type: ignore[arg-type]
    return verdict.word


def test_the_interval_is_that_of_one_more_run() -> None:
    """Values 0.4, 0.5, 0.6 have mean 0.5 and deviation 0.1: 0.5 ± t₀.₉₇₅,₂ · 0.1 · √(4/3)."""
    half = t.ppf(0.975, 2) * 0.1 * math.sqrt(4 / 3)
    values = [0.4, 0.5, 0.6]
    inside, outside = f"{0.5 + half - 0.001:.4f}", f"{0.5 + half + 0.001:.4f}"
    assert judged(cell(inside), values, RULE)[0] == MATCHES
    assert judged(cell(outside), values, RULE)[0] == DIFFERS


def test_a_printed_number_stands_for_all_that_round_to_it() -> None:
    assert judged(cell("0.98"), [0.984, 0.984], RULE)[0] == MATCHES
    assert judged(cell("0.98"), [0.986, 0.986], RULE)[0] == DIFFERS
    assert judged(cell("0.980"), [0.984, 0.984], RULE)[0] == DIFFERS
    assert 0.98 - 0.975 > 0.005 and 0.985 - 0.98 > 0.005, "as floating-point numbers"
    for half in (0.975, 0.985):
        assert judged(cell("0.98"), [half, half], RULE)[0] == MATCHES


def test_one_run_may_match_and_never_differs() -> None:
    assert judged(cell("0.98"), [0.984], RULE)[0] == MATCHES
    assert judged(cell("0.98"), [0.5], RULE)[0] == NOT_COMPARABLE


def test_runs_of_other_data_models_options_or_scales_are_not_compared() -> None:
    assert word([cell("0.50")], [row(0.5), row(0.5, 1)]) == MATCHES
    for changed in (
        {"dataset": "cifar10"},
        {"model": "vit"},
        {"overrides": "experiment=x variant=amnesiac training.epochs=1"},
        {"overrides": "experiment=x variant=amnesiac method.strength=2"},
    ):
        found = [row(0.5, **changed), row(0.5, 1, **changed)]
        assert word([cell("0.50")], found) == NOT_COMPARABLE, changed
    apart = {"cpu": "a tenth of the rows"}
    assert word([cell("0.50")], [row(0.5), row(0.5, 1)], "cpu", apart=apart) == NOT_COMPARABLE
    assert word([cell("0.50")], [row(0.5), row(0.5, 1)], "paper", apart=apart) == MATCHES
    assert word([cell("0.50")], [row(0.5, line="other")]) == NOT_RUN


def test_a_run_of_ones_own_stands_before_the_committed_one_of_its_seed(tmp_path: Path) -> None:
    committed = {
        int(each.seed): each.scores["test_forget_accuracy"]
        for each in rows.read(RESULTS / "paper004_table3_cpu_rows.csv")
        if (each.variant, each.role) == ("amnesiac", "unlearned")
    }
    made = result("amnesiac", 0, 0.123)
    names = {**made.names, "dataset": "mnist", "model": "resnet18", "variant": "amnesiac"}
    scores = {role: {"test_forget_accuracy": 0.123} for role in made.scores}
    own = replace(made, name="paper004_table3_cpu", names=names, scores=scores)
    Results(tmp_path / "results").write(own, {})
    found = verdicts(table("paper004_table3"), found_runs("paper004_table3", tmp_path))
    (mine,) = [
        each.values
        for each in found
        if each.cell[:3] == ("amnesiac", "unlearned", "test_forget_accuracy")
    ]
    assert 0 in committed and sorted(mine) == sorted({**committed, 0: 0.123}.values())


def test_a_folder_whose_results_were_deleted_counts_as_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results" / "paper004_table1_cpu" / "matrices").mkdir(parents=True)
    assert found_runs("paper004_table1", tmp_path) == found_runs("paper004_table1", tmp_path / "none")
    with pytest.raises(UserError, match="it is empty: run something first"):
        Results(tmp_path / "results").named("paper004_table1_cpu")
    main(["name=paper004_table1_cpu", f"paths.root={tmp_path}"])
    assert "no file is written, since" in capsys.readouterr().out


def test_a_seed_counts_once_and_as_its_preset_is_written() -> None:
    odd = row(0.9, 0, overrides="experiment=x training.epochs=1 seed=0")
    (found,) = verdicts(
        Table("x", [cell()]), [ScaleRows("paper", [odd, row(0.5), row(0.6, 1), row(0.5)])]
    )
    assert sorted(found.values) == [0.5, 0.6]


def test_runs_with_different_options_are_not_pooled() -> None:
    found = [row(0.2, 0, overrides="training.lr=2"), row(0.8, 1, overrides="training.lr=3")]
    (verdict,) = verdicts(Table("x", [cell("0.50")]), [ScaleRows("paper", found)])
    assert verdict.values == [0.2] and verdict.reason == "made with training.lr=2"
    other = [row(0.5), row(0.9, 1, dataset="cifar10")]
    (verdict,) = verdicts(Table("x", [cell("0.50")]), [ScaleRows("paper", other)])
    assert verdict.values == [0.5] and verdict.word == MATCHES


def test_a_run_without_a_score_takes_no_seed_from_one_that_has_it() -> None:
    found = [replace(row(0.9), scores={}), row(0.5), row(0.5, 1)]
    (verdict,) = verdicts(Table("x", [cell("0.50")]), [ScaleRows("paper", found)])
    assert verdict.values == [0.5, 0.5]


def test_the_largest_scale_that_decides_counts() -> None:
    runs = [ScaleRows("paper", [row(0.1)]), ScaleRows("cpu", [row(0.5), row(0.51, 1), row(0.49, 2)])]
    (found,) = verdicts(Table("x", [cell()]), runs)
    assert (found.word, found.scale) == (MATCHES, "cpu")


def test_several_runs_count_before_a_single_one_of_a_larger_scale() -> None:
    """A single run can only match: it would hide that the interval of several leaves the number out."""
    several = [row(0.9), row(0.91, 1), row(0.89, 2)]
    (found,) = verdicts(
        Table("x", [cell()]), [ScaleRows("paper", [row(0.5)]), ScaleRows("cpu", several)]
    )
    assert (found.word, found.scale) == (DIFFERS, "cpu")
    apart = Table("x", [cell()], apart={"cpu": "a tenth of the rows"})
    (found,) = verdicts(apart, [ScaleRows("paper", [row(0.5)]), ScaleRows("cpu", several)])
    assert (found.word, found.scale, found.values) == (MATCHES, "paper", [0.5])


def test_lines_and_scores_may_stand_for_printed_ones() -> None:
    of = {"instead": {"cpu": {"amnesiac": "small"}}, "metrics": {"cpu": {"x": "test_forget_accuracy"}}}
    found = [row(0.5, line="small"), row(0.5, 1, line="small")]
    assert word([cell("0.50", metric="x")], found, "cpu", **of) == MATCHES
    assert word([cell("0.50", metric="x")], found, "paper", **of) == NOT_RUN
    of["apart"] = {"cpu": "other data"}
    (told,) = verdicts(Table("x", [cell(metric="x")], **of), [ScaleRows("cpu", found)])  # type: ignore[arg-type]
    assert told.reason == "other data; our small stands for it; our test forget accuracy stands for it"


def test_the_first_fitting_reason_is_told() -> None:
    differs = [{"line": "other", "why": "no"}, {"role": "unlearned", "why": "yes"}, {"why": "rest"}]
    (found,) = verdicts(
        Table("x", [cell("0.90")], differs=differs), [ScaleRows("paper", [row(0.5), row(0.5, 1)])]
    )
    assert found.word == DIFFERS and found.reason == "outside 0.500 to 0.500: yes"


def test_orders_and_gaps_are_compared_where_numbers_cannot_be() -> None:
    """Printed 0.9, 0.5, 0.1 and 0.2; ours have the same order, and one gap of another sign."""
    printed = {"retrain": "0.90", "a": "0.50", "b": "0.10", "c": "0.20"}
    ours = {"retrain": 0.4, "a": 0.3, "b": 0.01, "c": 0.2}
    cells = [cell(text, line) for line, text in printed.items()]
    of = Table("x", cells, apart={"cpu": "another model"}, ranks="retrain")
    found = verdicts(of, [ScaleRows("cpu", [row(value, line=line) for line, value in ours.items()])])
    (same,) = agreements(of, found)
    assert (same.correlation, same.signs, same.lines) == (pytest.approx(1), 3, 3)
    ours["a"] = 0.45
    found = verdicts(of, [ScaleRows("cpu", [row(value, line=line) for line, value in ours.items()])])
    (other,) = agreements(of, found)
    assert (other.correlation, other.signs, other.lines) == (pytest.approx(0.8), 2, 3)


def test_rows_survive_their_file(tmp_path: Path) -> None:
    found = [row(0.5), row(0.25, 1, overrides="experiment=x 'scenario.classes=[3, 5]' seed=1")]
    path = tmp_path / "x_rows.csv"
    path.write_text(rows.text(found, ["test_forget_accuracy", "absent"]))
    assert rows.read(path) == found
    assert found[1].own_options == ["scenario.classes=[3, 5]"]


def test_rows_stand_by_the_size_of_their_seeds() -> None:
    lines = rows.text([row(0.5, seed) for seed in (10, 2, 1)], ["test_forget_accuracy"]).splitlines()
    assert [line["seed"] for line in csv.DictReader(lines)] == ["1", "2", "10"]


def test_a_row_has_the_commands_of_all_its_scores(tmp_path: Path) -> None:
    """A line for each, without the places of one machine."""
    own = ["experiment=x", "training.epochs=1", f"paths.root={tmp_path}", "metric=[loss]"]
    made = replace(result("a", 0, 0.6), overrides=own, also=[[*own[:-1], "metric=[accuracy,ece]"]])
    path = tmp_path / "x_rows.csv"
    path.write_text(Report([made], ["test_accuracy"]).rows())
    for found in rows.read(path):
        assert found.overrides.split("\n") == [
            "experiment=x training.epochs=1 'metric=[loss]'",
            "experiment=x training.epochs=1 'metric=[accuracy,ece]'",
        ]
        assert found.own_options == ["training.epochs=1"]


def test_all_255_printed_numbers_have_a_verdict(tmp_path: Path) -> None:
    counted = {name: len(table(name).cells) for name in names()}
    assert sum(counted.values()) == 255 and len(counted) == 9
    last = summary(MARKDOWN, tmp_path).split("\n\n")[0].splitlines()[-1]
    _, cells, *each = [part.strip() for part in last.strip("|").split("|")]
    assert int(cells) == sum(map(int, each)) == 255


@pytest.mark.parametrize("name", names())
def test_a_printed_table_has_a_preset_whose_variants_are_its_lines(name: str) -> None:
    from runner.compose import jobs

    known = table(name)
    listed = {option for job in jobs([f"experiment={name}"]) for option in job}
    assert {f"variant={cell.line}" for cell in known.cells} <= listed
    assert composed_once(f"experiment={name}")[0].table.published == name
    for each in known.cells:
        assert known.reason(each) or set(known.apart) >= set(SCALES), "a difference has a reason"
    for scale, lines in known.instead.items():
        listed = {option for job in jobs([f"experiment={name}", f"scale={scale}"]) for option in job}
        assert {f"variant={line}" for line in lines.values()} <= listed
    assert {*known.apart, *known.instead, *known.metrics} <= set(SCALES)


def test_every_scale_with_other_settings_is_told_apart_from_the_paper() -> None:
    """A preset that a scale shrinks in more than its seeds is not compared at it."""
    for name in names():
        for path in (CONF / "scale/experiment" / name).glob("*.yaml"):
            seeds = "seed: 0" in path.read_text() and "data:" not in path.read_text()
            assert path.stem == "quick" or path.stem in table(name).apart or seeds, path


def test_the_rule_is_data() -> None:
    assert rule() == RULE


def test_a_name_has_the_verdicts_of_its_scale(tmp_path: Path) -> None:
    assert of_table(MARKDOWN, "digits", tmp_path) is None
    for name in ("paper003_table1", "paper003_table1_cpu"):
        assert "paper003_table1: 12" in (of_table(MARKDOWN, name, tmp_path) or "")
    assert [each.scale for each in found_runs("paper003_table1", tmp_path)] == list(SCALES)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("paper004_table1", "python -m runner -m experiment=paper004_table1"),
        ("paper004_table1_cpu", "python -m runner -m experiment=paper004_table1 scale=cpu"),
    ],
)
def test_verdicts_without_runs_say_that_no_file_is_written_and_what_makes_one(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([f"name={name}", "format=html", f"paths.root={tmp_path}"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"no file is written, since {tmp_path / 'results'} holds no run of {name}: make some with "
        f"`{command}`, or set another paths.root=…"
    )
    assert not list(tmp_path.rglob("*.html"))


def test_the_summary_is_a_command() -> None:
    command = [sys.executable, "-m", "runner.report", "paths.root=outputs", "papers"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=RESULTS.parent)
    assert "not comparable" in done.stdout and "255" in done.stdout
