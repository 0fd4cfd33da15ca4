"""Tables of made-up rows with known means, intervals and gaps."""

import csv
import io
from pathlib import Path

import pytest

from data.errors import UserError
from runner.report import Report
from runner.results import Results, Row, tidy

COLUMNS = ["test_accuracy", "gradient_examples"]


def row(method: str, seed: int, score: float | None, retrained: float = 0.5, **changes: object) -> Row:
    parameters = {"method.lr": 0.1, "pretrain.data.limit": None, **changes}
    models = {"original": 0.9, "unlearned": score, "reference": retrained}
    done = score is not None
    return Row(
        name="made_up",
        key=f"{method}{seed}{sorted(changes.items())}",
        seed=seed,
        names={"dataset": "digits", "model": "small_cnn", "scenario": "random", "method": method},
        setting="setting",
        cell=f"{method}{sorted(changes.items())}",
        parameters=parameters,
        overrides=[],
        artefacts=[],
        provenance={"commit": "abc", "dirty": False},
        status="done" if done else "diverged",
        error=None if done else "the loss became nan",
        scores={role: {"test_accuracy": value} for role, value in models.items()} if done else {},  # type: ignore[dict-item]
        costs={role: {"gradient_examples": 1000.0} for role in models} if done else {},
    )


def cells(report: Report) -> dict[tuple[str, str], dict[str, str]]:
    lines = csv.DictReader(io.StringIO(report.csv()))
    return {(line["line"], line["metric"]): line for line in lines}


def test_the_mean_has_a_student_interval() -> None:
    rows = [row("finetune", seed, score) for seed, score in enumerate([0.1, 0.2, 0.3])]
    cell = cells(Report(rows, COLUMNS))["finetune", "test_accuracy"]
    assert float(cell["value"]) == pytest.approx(0.2)
    # t₀.₉₇₅,₂ = 4.30265; s = 0.1; 4.30265 · 0.1 / √3
    assert float(cell["half_width"]) == pytest.approx(0.248414, abs=1e-6)
    assert cell["n"] == "3"
    assert "0.200 ± 0.248" in Report(rows, COLUMNS).terminal()


def test_gaps_are_paired_by_seed() -> None:
    """Scores and references vary much; their difference is the same for every seed."""
    rows = [row("finetune", seed, x + 0.25, retrained=x) for seed, x in enumerate([0.1, 0.4, 0.7])]
    cell = cells(Report(rows, COLUMNS))["finetune", "test_accuracy"]
    assert float(cell["gap"]) == pytest.approx(0.25)
    assert float(cell["gap_half_width"]) == pytest.approx(0, abs=1e-12)
    assert float(cell["half_width"]) > 0.5


def test_shared_models_are_counted_once_per_seed() -> None:
    rows = [row(method, seed, 0.3) for method in ("finetune", "random_labels") for seed in (0, 1)]
    rows += [row("retrain", seed, 0.5) for seed in (0, 1)] + [row("original", 0, 0.9)]
    frame = tidy(rows)
    accuracy = frame[frame.metric == "test_accuracy"]
    assert accuracy.groupby("method").size().to_dict() == {
        "original": 2, "retrain": 2, "finetune": 2, "random_labels": 2
    }  # fmt: skip


def test_lines_are_the_original_the_methods_and_the_reference() -> None:
    rows = [row(method, 0, 0.3) for method in ("random_labels", "finetune")]
    lines = [line.split()[0] for line in Report(rows, COLUMNS).terminal().splitlines() if line.strip()]
    order = [lines.index(name) for name in ("original", "finetune", "random_labels", "retrain")]
    assert order == sorted(order)


def test_short_cells_say_how_many_seeds_they_have() -> None:
    rows = [row("finetune", 0, 0.2), row("finetune", 1, 0.2), row("random_labels", 0, 0.4)]
    text = Report(rows, COLUMNS).terminal()
    assert "0.400 (n=1)" in text and "0.200 ± 0.000 " in text + " "
    assert "(n=2)" in Report(rows, COLUMNS, seeds=5).terminal()


def test_a_failed_run_is_reported_and_leaves_its_cell_short() -> None:
    rows = [row("finetune", 0, 0.2), row("finetune", 1, 0.3), row("random_labels", 0, 0.2)]
    text = Report([*rows, row("random_labels", 1, None)], COLUMNS).terminal()
    assert "random_labels, seed 1: diverged: the loss became nan" in text
    assert "0.200 (n=1)" in text


def test_runs_with_other_parameters_are_other_lines_named_by_what_differs() -> None:
    rows = [row("finetune", 0, 0.2), row("finetune", 0, 0.6, **{"method.lr": 0.01})]
    found = cells(Report(rows, COLUMNS))
    assert float(found["finetune (lr=0.1)", "test_accuracy"]["value"]) == 0.2
    assert float(found["finetune (lr=0.01)", "test_accuracy"]["value"]) == 0.6


def test_rows_of_several_commits_are_remarked() -> None:
    other = row("finetune", 1, 0.2)
    other.provenance = {"commit": "def", "dirty": False}
    assert "several commits: abc, def" in Report([row("finetune", 0, 0.2), other], COLUMNS).terminal()


def test_markdown_and_latex_hold_the_same_numbers() -> None:
    report = Report([row("finetune", seed, 0.2 + seed / 10) for seed in range(3)], COLUMNS)
    assert "| finetune" in report.markdown() and "0.300 ± 0.248" in report.markdown()
    assert "\\begin{tabular}" in report.latex() and "0.300 ± 0.248" in report.latex()


def test_rows_survive_writing_and_a_later_one_takes_the_place(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write(row("finetune", 0, 0.1), {})
    results.write(row("finetune", 0, 0.2), {"unlearned": {"confusion": [[1, 0], [0, 1]]}})
    (found,) = results.rows("made_up")
    assert found.scores["unlearned"]["test_accuracy"] == 0.2
    assert not list(tmp_path.rglob("*.tmp"))


def test_unknown_names_and_torn_rows_are_named(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write(row("finetune", 0, 0.1), {})
    with pytest.raises(UserError, match=r"no results are named other.*made_up"):
        results.rows("other")
    (tmp_path / "made_up" / "torn.json").write_text('{"name": "ma')
    with pytest.raises(UserError, match=r"torn\.json is damaged"):
        results.rows("made_up")
