"""Verdicts side by side: which lines match in all scores, and which scores contradict each other."""

from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import UserError
from runner.report import Report
from runner.report.agreement import contradictions, main, matching, text, verdicts_of
from runner.results import Result, Results
from tests.test_report import result

ABOUT = {
    "better": "reference",
    "remembers": 1,
    "margin": 0.05,
    "unit": "share",
    "null": None,
    "paired": False,
}
SCORES = ("accuracy", "auc")


def run(method: str, accuracy: float, auc: float) -> Result:
    """One run of a method, beside four retrained models of accuracy 0.5 and AUC 0.6, but for noise."""
    base = result(method, 0, 0.5)
    scores = {
        "unlearned": {"accuracy": accuracy, "auc": auc},
        "reference": {"accuracy": 0.5, "auc": 0.6},
    }
    others = {
        str(seed): {
            "weights": f"r{seed}",
            "scores": {"accuracy": 0.5 + noise, "auc": 0.6 + noise},
            "costs": {},
        }
        for seed, noise in ((1, 0.001), (2, -0.001), (3, 0.0))
    }
    said = {name: {"says": f"The {name}.", **ABOUT} for name in SCORES}
    costs = {"unlearned": {}, "reference": {}}
    return replace(base, scores=scores, costs=costs, references=others, about=said)


RUNS = [run("good", 0.5, 0.6), run("seems_good", 0.5, 0.9), run("bad", 0.9, 0.9)]


def test_verdicts_matches_and_contradictions() -> None:
    report = Report(RUNS, SCORES)
    verdicts = verdicts_of(report.comparisons, SCORES)
    named = {report.labels[line]: each for line, each in verdicts.items()}
    assert named["good"] == {"accuracy": "matches", "auc": "matches"}
    assert named["seems_good"] == {"accuracy": "matches", "auc": "under-forgets"}
    assert [report.labels[line] for line in matching(verdicts)] == ["good"]
    ((scores, lines),) = contradictions(verdicts).items()
    assert scores == SCORES and [report.labels[line] for line in lines] == ["seems_good"]


def test_columns_that_no_run_has_are_refused_and_none_lists_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in RUNS:
        Results(tmp_path / "results").write(each, {})
    asked = [f"name={RUNS[0].name}", f"paths.root={tmp_path}"]
    with pytest.raises(UserError, match=r"no run of made_up has acc \(did you mean auc\?\)"):
        main([*asked, "table.columns=[acc]"])
    main([*asked, "table.columns=[]"])
    assert "accuracy: The accuracy. (share; best: as the retrained models)" in capsys.readouterr().out


def test_the_page_names_them() -> None:
    page = text(Report(RUNS, SCORES), SCORES)
    assert "Match the retrained models in every score: good." in page
    assert "| seems good" in page and "under" in page


def test_the_table_has_verdicts_their_count_and_the_glossary() -> None:
    report = Report(RUNS, SCORES)
    shown = report.terminal()
    assert "+0.300 under" in shown and "matches" in shown
    # three runs and two scores; the shared retrained line is not judged
    assert "6 verdicts; if all these models were retrained ones, 0.3 would wrongly differ" in shown
    assert "auc: The auc. (share; best: as the retrained models)" in shown
    assert "over 4 retrained models" in shown
    assert "under-forgets" in report.csv()


def test_an_official_twin_is_marked_and_has_no_verdict() -> None:
    twin = {"says": "As a paper's code computes it.", **ABOUT, "remembers": 0, "margin": None}
    runs = []
    for each in RUNS:
        scores = {role: {"x_official": found["auc"]} for role, found in each.scores.items()}
        others = {
            seed: {**other, "scores": {"x_official": other["scores"]["auc"]}}
            for seed, other in each.references.items()
        }
        about = {"x_official": twin}
        runs.append(replace(each, scores=scores, references=others, about=about))
    report = Report(runs, ["x_official"])
    assert all(compared.verdict is None for compared in report.comparisons.values())
    assert "official †" in report.markdown() and "†: as a paper's code computes it" in report.markdown()
