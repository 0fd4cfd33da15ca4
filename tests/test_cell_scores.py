"""Scores of a whole cell: one per target or population, the same for every seed, beside their null."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import UserError
from runner.plan import Plan
from runner.report import Report
from runner.store import Store
from tests.conftest import result_of, results_in

Quick = Callable[..., Plan]

SHADOWS = [
    "metric=[accuracy,ulira,lira,rmia_online]",
    "evaluation.shadows=6",
    "scenario=random",
    "scenario.count=40",
]
COLUMNS = ["test_accuracy", "ulira_auc"]


def test_shadow_attacks_have_a_value_per_target_and_one_half_beside_them(
    quick: Quick, tmp_path: Path
) -> None:
    one, other = result_of(quick(*SHADOWS)), result_of(quick(*SHADOWS, "seed=1"))
    assert len(one.cell_scores["ulira_auc"]) == 6
    assert one.cell_scores == other.cell_scores, "a cell's score does not depend on the seed"
    report = Report(results_in(tmp_path, "digits_small_cnn_random"), COLUMNS)
    (line,) = [
        line for line in csv.DictReader(io.StringIO(report.csv())) if line["metric"] == "ulira_auc"
    ]
    assert line["n"] == "6" and float(line["null_mean"]) == 0.5 and line["verdict"]
    shown = report.terminal()
    assert "over 2 seeds" in shown, "targets are no seeds"
    assert "0.500" in shown.split("gap to retrain")[0], "the retrained models' value by definition"


def test_the_rows_that_leak_most_lie_beside_the_results(quick: Quick, tmp_path: Path) -> None:
    result = result_of(quick(*SHADOWS))
    (path,) = tmp_path.glob(f"results/*/matrices/{result.key}-*.json")
    assert "leaking_rows" in path.read_text()


def test_a_population_is_that_of_the_references_seeds(quick: Quick, tmp_path: Path) -> None:
    options = ["metric=[accuracy,margin_distance,challenge]", "evaluation.references=4"]
    result = result_of(quick(*options))
    assert result.cell_scores["margin_distance"] != result.cell_scores["margin_distance_null"]
    unlearned = [made for made in Store(tmp_path / "store").artefacts() if made.stage == "unlearn"]
    assert len(unlearned) == 8, "four unlearned and four retrained models"
    result_of(quick(*options, "seed=3"))
    again = [made for made in Store(tmp_path / "store").artefacts() if made.stage == "unlearn"]
    assert again == unlearned, "the run of another of these seeds trains nothing"


def test_a_population_that_takes_too_long_is_refused(quick: Quick) -> None:
    # of three other seeds a reference, an original and an unlearned model each
    few = ["metric=[accuracy,margin_distance]", "evaluation.references=4", "evaluation.seconds=1e-6"]
    with pytest.raises(UserError, match=r"^trainings are missing \(9 for evaluation\.references\)"):
        result_of(quick(*few))


def test_a_metric_of_shadows_without_shadows_is_refused(quick: Quick) -> None:
    with pytest.raises(UserError, match=r"^metric=\[ulira\] needs shadow models: set evaluation="):
        quick("metric=[ulira]")
