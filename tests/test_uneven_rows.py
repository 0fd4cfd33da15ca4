"""Rows that lack seeds, retrained models or scores that others of their setting have."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from runner.figure.runs import Runs
from runner.figure.scores import ScoresFigure
from runner.joining import joined
from runner.plan import Plan
from runner.report import Report
from runner.report.agreement import matching
from runner.report.cells import Estimate, interval
from runner.report.compare import Compared
from runner.results import Line, Result, Results
from tests.conftest import result_of
from tests.test_report import result

RETRAINED = Line("setting", "reference")

ALONE = {
    "says": "A share.",
    "unit": "share",
    "better": "reference",
    "remembers": 1,
    "margin": 0.02,
    "null": None,
    "paired": False,
}
PAIRED = {**ALONE, "better": "lower", "remembers": 0, "paired": True}
OF_CELL = {**ALONE, "null": 0.5}


def run(
    method: str,
    seed: int,
    value: float,
    retrained: dict[int, float],
    about: dict[str, object] = ALONE,
    drawn: bool = False,
) -> Result:
    """Return a run with these scores of retrained models by seed; a score that compares is 0 for its own
    one, and the original's is 0.9."""
    own = 0.0 if about["paired"] else retrained[seed]
    scores = {"original": {"score": 0.9}, "unlearned": {"score": value}, "reference": {"score": own}}
    others = {
        str(key): {"weights": "r", "scores": {"score": each}, "costs": {}}
        for key, each in retrained.items()
        if key != seed
    }
    made = result(method, seed, 0.5)
    return replace(made, scores=scores, references=others, about={"score": about}, drawn=drawn)


def without_retrained(made: Result) -> Result:
    scores = {role: found for role, found in made.scores.items() if role != "reference"}
    return replace(made, scores=scores, references={})


def compared(results: list[Result]) -> dict[str, Compared]:
    report = Report(results, ["score"])
    return {report.labels[line]: found for (line, _), found in report.comparisons.items()}


def test_a_verdict_is_on_all_seeds_whichever_have_other_retrained_models() -> None:
    """With evaluation.references=1 the run of seed 0 has its own retrained model, and no other."""
    pool = {0: 0.0, 1: 0.01, 2: 0.02, 3: 0.0, 4: 0.02}
    values = [0.9, 0.4, 0.5, 0.6, 0.5]
    runs = [run("finetune", seed, values[seed], {0: 0.0, seed: pool[seed]}) for seed in pool]
    assert not runs[0].references
    found = compared(runs)["finetune"].difference
    welch = stats.ttest_ind(values, list(pool.values()), equal_var=False)
    assert found.n == 5
    assert found.mean == pytest.approx(np.mean(values) - np.mean(list(pool.values())))
    assert found.mean / found.error == pytest.approx(welch.statistic)
    assert found.freedom == pytest.approx(welch.df)


@pytest.mark.parametrize(("about", "drawn"), [(PAIRED, False), (ALONE, True)])
def test_runs_of_a_seed_share_its_retrained_models(about: dict[str, object], drawn: bool) -> None:
    """One method was run beside five retrained models, the other beside two of them."""
    many = [{key: 0.1 + key / 100 for key in (*range(5), seed)} for seed in range(3)]
    full = [run("finetune", seed, 0.3, many[seed], about, drawn) for seed in range(3)]
    few = [{key: each[key] for key in {0, seed}} for seed, each in enumerate(many)]
    short = [run("ssd", seed, 0.3, few[seed], about, drawn) for seed in range(3)]
    alone = compared(full)
    for both in (full + short, short + full):
        found = compared(both)
        assert found["finetune"] == alone["finetune"] and found["original"] == alone["original"]
        assert found["ssd"].difference == alone["finetune"].difference


@pytest.mark.parametrize(("about", "drawn"), [(PAIRED, False), (ALONE, True)])
def test_the_retrained_line_is_over_all_seeds_whichever_the_last_method_has(
    about: dict[str, object], drawn: bool
) -> None:
    retrained = [dict.fromkeys(range(6), 0.1 * (seed + 1)) for seed in range(3)]
    full = [run("finetune", seed, 0.3, retrained[seed], about, drawn) for seed in range(3)]
    report = Report([*full, run("ssd", 2, 0.3, retrained[2], about, drawn)], ["score"])
    found = report.estimates[RETRAINED, "score"]
    assert (found.mean, found.n) == (pytest.approx(0.2), 3)
    assert "over the means of 3 seeds, each of several retrained models of its own" in report.terminal()


def test_the_remark_on_the_retrained_line_counts_seeds_and_models_of_each_request_apart() -> None:
    """Two seeds of random rows, each with retrained models of its own, and two of a class, which share
    five."""
    retrained = {seed: 0.1 * (seed + 1) for seed in range(5)}
    drawn = [run("finetune", seed, 0.3, retrained, drawn=True) for seed in (0, 1)]
    shared = [replace(run("finetune", seed, 0.3, retrained), setting="a class") for seed in (0, 1)]
    said = Report([*drawn, *shared], ["score"]).terminal()
    assert "over 5 retrained models, or the means of 2 seeds, each of several" in said


def test_a_shared_model_has_its_gap_from_the_run_that_has_a_retrained_one() -> None:
    with_gap = [run("finetune", seed, 0.3, {seed: 0.1}) for seed in (0, 1)]
    bare = [without_retrained(run("amnesiac", seed, 0.4, {seed: 0.1})) for seed in (0, 1)]
    lines = csv.DictReader(io.StringIO(Report(bare + with_gap, ["score"]).csv()))
    found = {line["line"]: line for line in lines if line["metric"] == "score"}
    assert (float(found["original"]["gap"]), found["original"]["gap_n"]) == (pytest.approx(0.8), "2")
    assert found["amnesiac"]["gap"] == ""


def test_the_values_of_a_cell_are_those_of_one_run() -> None:
    """One run had 6 shadow models, and a later one 8: their values are not mixed."""
    values = {0: [0.5] * 6, 1: [0.7, 0.72, 0.7, 0.72, 0.7, 0.72, 0.7, 0.72]}
    runs = [
        replace(run("finetune", seed, 0.3, {}, PAIRED), cell_scores={"attack": each})
        for seed, each in values.items()
    ]
    runs = [replace(each, about={"attack": OF_CELL}) for each in runs]
    for order in (runs, runs[::-1]):
        lines = csv.DictReader(io.StringIO(Report(order, ["attack"]).csv()))
        (found,) = [line for line in lines if line["metric"] == "attack"]
        assert (float(found["value"]), found["n"]) == (pytest.approx(0.71), "8")
        assert float(found["difference"]) == pytest.approx(0.21)


def test_a_figure_has_the_retrained_models_where_the_table_has_them() -> None:
    """The distance of a retrained model from itself is 0, and from the others it is not."""
    runs = [run("finetune", seed, 0.3, dict.fromkeys(range(6), 0.15), PAIRED) for seed in (0, 1)]
    report = Report(runs, ["score"])
    (axes,) = ScoresFigure("gradient_examples", ["score"], False).draw(Runs(report, Path())).axes
    (at,) = [line.get_ydata()[0] for line in axes.lines if line.get_label() == "retrained"]
    assert at == report.estimates[RETRAINED, "score"].mean == pytest.approx(0.15)


def test_equal_shares_are_drawn_whatever_their_interval_rounds_to() -> None:
    shares = [number / 1000 for number in range(1001)]
    for share in shares:
        low, high = interval(Estimate(share, 0.0, 2), share=True)
        assert low == pytest.approx(share) == high and low <= share <= high
    runs = [run("finetune", seed, 0.3, {seed: 0.1}) for seed in (0, 1)]
    figure = ScoresFigure("gradient_examples", ["score"], False)
    assert figure.draw(Runs(Report(runs, ["score"]), Path()))


def test_a_score_that_one_seed_has_other_retrained_models_of_is_over_these_and_no_means() -> None:
    """With evaluation.references=1 the run of seed 1 has its own retrained model, and no other."""
    runs = [
        run("finetune", 0, 0.2, {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3}, PAIRED),
        run("finetune", 1, 0.3, {1: 0.0}, PAIRED),
    ]
    report = Report(runs, ["score"])
    assert report.estimates[RETRAINED, "score"].n == 3 and not report.by_seed
    assert "95 % t-interval over 3 retrained models;" in report.terminal()


def test_results_of_a_renamed_folder_have_its_name(tmp_path: Path) -> None:
    results = Results(tmp_path)
    matrices = {"unlearned": {"confusion": [[1.0]]}}
    results.write(run("finetune", 0, 0.3, {0: 0.1}), matrices)
    (tmp_path / "made_up").rename(tmp_path / "renamed")
    (found,) = results.named("renamed")
    assert results.matrices(found) == matrices
    results.write(found, {})
    assert [path.name for path in tmp_path.iterdir()] == ["renamed"]


def test_a_line_without_a_verdict_in_some_score_does_not_match_in_every_score() -> None:
    one, other, elsewhere = Line("s", "one"), Line("s", "other"), Line("t", "one")
    both, first = {"a": "matches", "b": "matches"}, {"a": "matches"}
    assert matching({one: both, other: first, elsewhere: first}) == [one, elsewhere]


def test_a_metric_whose_training_rows_are_not_predicted_has_not_its_own_reason(
    quick: Callable[..., Plan],
) -> None:
    options = ["metric=[accuracy,rmia]", "evaluation.references=2"]
    assert "rmia" in result_of(quick(*options)).undefined
    assert not result_of(quick(*options, "scenario=random", "evaluation.train=false")).undefined


def test_the_reason_of_an_absent_score_goes_with_its_absence() -> None:
    reasons = {"loss": "no rows", "loss_official": "no rows"}
    lacking = replace(run("finetune", 0, 0.3, {0: 0.1}), scores={}, about={}, undefined=reasons)
    about = {"loss_official_share": {**ALONE, "metric": "loss_official"}}
    assert joined(lacking, replace(lacking, about=about, undefined={})).undefined == {"loss": "no rows"}
    assert joined(lacking, lacking).undefined == reasons
    nan = {"unlearned": ["mine", "other"], "reference": ["mine"]}
    made = replace(lacking, scores={"unlearned": {"mine": 0.5}}, not_finite={})
    absent = joined(replace(lacking, not_finite=nan), made).not_finite
    assert absent == {"unlearned": ["other"], "reference": ["mine"]}


def test_a_score_that_is_no_number_any_more_loses_its_earlier_value() -> None:
    """A metric may have another option, or be corrected, since then."""
    made = replace(
        run("finetune", 0, 0.3, {0: 0.1}),
        scores={"unlearned": {"mine": 0.5, "other": 0.2}},
        references={"1": {"scores": {"mine": 0.1}}, "2": {"scores": {"mine": 0.1}}},
        cell_scores={"of_cell": 1.0},
    )
    nan = {"unlearned": ["mine", "of_cell"], "reference": ["mine"]}
    later = replace(made, scores={}, references={"1": {"scores": {}}}, cell_scores={}, not_finite=nan)
    both = joined(made, later)
    assert both.scores == {"unlearned": {"other": 0.2}} and both.cell_scores == {}
    assert both.references == {"1": {"scores": {}}, "2": {"scores": {"mine": 0.1}}}
    assert both.not_finite == nan
