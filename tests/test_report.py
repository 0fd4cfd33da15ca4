"""Tables of made-up results with known means, intervals and gaps."""

import csv
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import UserError
from runner.compose import composed
from runner.published import Printed
from runner.report import Report, show
from runner.report.cells import Estimate
from runner.report.frame import tidy
from runner.report.remarks import interval_remarks
from runner.results import Line, Result, Results
from runner.roles import ROLES

PROVENANCE = {"commit": "abc", "dirty": False, "device": "cpu", "threads": 1, "torch": "2"}
COLUMNS = ["test_accuracy", "gradient_examples"]


def result(
    method: str,
    seed: int,
    score: float | None,
    retrained: float = 0.5,
    setting: str = "setting",
    **changes: object,
) -> Result:
    own = {} if method == "retrain" else {"method.lr": 0.1}
    parameters = {"pretrain.data.limit": None, **own, **changes}
    models = {"original": 0.9, "unlearned": score, "reference": retrained}
    weights = {"original": "o", "retrain": "r"}
    done = score is not None
    return Result(
        name="made_up",
        key=f"{method}{seed}{sorted(changes.items())}",
        seed=seed,
        names={"dataset": "digits", "model": "small_cnn", "scenario": "random", "method": method},
        setting=setting,
        cells={"unlearned": f"{method}{sorted(changes.items())}"},
        parameters=parameters,
        overrides=[],
        artefacts=[],
        weights={"original": "o", "unlearned": weights.get(method, "u"), "reference": "r"},
        provenance={"row": PROVENANCE},
        status="done" if done else "diverged",
        error=None if done else "the loss became nan",
        scores={role: {"test_accuracy": value} for role, value in models.items()} if done else {},  # type: ignore[dict-item]
        costs={role: {"gradient_examples": 1000.0} for role in models} if done else {},
    )


def cells(report: Report) -> dict[tuple[str, str], dict[str, str]]:
    lines = csv.DictReader(io.StringIO(report.csv()))
    return {(line["line"], line["metric"]): line for line in lines}


def test_the_mean_has_a_student_interval() -> None:
    results = [result("finetune", seed, score) for seed, score in enumerate([0.1, 0.2, 0.3])]
    cell = cells(Report(results, COLUMNS))["finetune", "test_accuracy"]
    assert float(cell["value"]) == pytest.approx(0.2)
    # t₀.₉₇₅,₂ = 4.30265; s = 0.1; 4.30265 · 0.1 / √3
    assert float(cell["half_width"]) == pytest.approx(0.248414, abs=1e-6)
    assert cell["n"] == "3"
    assert "0.200 ± 0.248" in Report(results, COLUMNS).terminal()


@pytest.mark.parametrize(("seeds", "few"), [(1, False), (2, True), (3, False)])
def test_an_interval_of_two_seeds_is_remarked(seeds: int, few: bool) -> None:
    text = Report([result("finetune", seed, seed / 10) for seed in range(seeds)], COLUMNS).terminal()
    assert ("rests on a single difference where it is over 2 seeds: run 3 or more" in text) == few
    assert (f"interval over {seeds} seeds" in text) == (seeds > 1)


@pytest.mark.parametrize(("models", "few"), [(2, True), (3, False)])
def test_the_retrained_models_behind_an_interval_are_counted(models: int, few: bool) -> None:
    made = result("finetune", 0, 0.1)
    said = {
        "says": "The accuracy.",
        "unit": "0 to 1",
        "better": "higher",
        "remembers": 0,
        "margin": 0.01,
    }
    made.about = {"test_accuracy": {**said, "paired": False, "null": None}}
    made.references = {
        str(seed): {"scores": {"test_accuracy": seed / 10}, "costs": {}} for seed in range(1, models)
    }
    text = Report([made], COLUMNS).terminal()
    assert f"retrain: mean ± 95 % t-interval over {models} retrained models" in text
    assert ("over 2 retrained models: set evaluation.references=4" in text) == few


@pytest.mark.parametrize(
    ("most", "cure"), [(3, "set evaluation.references=4, or run more seeds"), (4, "run more seeds")]
)
def test_two_retrained_models_of_a_score_need_seeds_if_others_have_four(most: int, cure: str) -> None:
    """A cost is known of the runs' own retrained models alone."""
    line = Line("", "reference")
    found = {(line, "cost"): Estimate(1, 0.1, 2), (line, "score"): Estimate(1, 0.1, most)}
    said = interval_remarks(found, {line}, {"cost", "score"}, "retrain", ())
    assert said[-1].endswith(f"over 2 retrained models: {cure}")


def test_gaps_are_paired_by_seed() -> None:
    """Scores and references vary much; their difference is the same for every seed."""
    results = [result("finetune", seed, x + 0.25, retrained=x) for seed, x in enumerate([0.1, 0.4, 0.7])]
    cell = cells(Report(results, COLUMNS))["finetune", "test_accuracy"]
    assert float(cell["gap"]) == pytest.approx(0.25)
    assert float(cell["gap_half_width"]) == pytest.approx(0, abs=1e-12)
    assert float(cell["half_width"]) > 0.5


def test_without_retrained_models_nothing_speaks_of_gaps() -> None:
    made = [result(method, seed, 0.3) for method in ("finetune", "ssd") for seed in (0, 1, 2)]
    bare = [
        replace(each, scores={k: v for k, v in each.scores.items() if k != "reference"}) for each in made
    ]
    assert "over 3 seeds; gaps are paired by seed" in Report(made, COLUMNS).terminal()
    text = Report(bare, COLUMNS).terminal()
    assert "t-interval over 3 seeds" in text and "gap" not in text and "retrain" not in text


def test_shared_models_are_counted_once_per_seed() -> None:
    results = [result(method, seed, 0.3) for method in ("finetune", "random_labels") for seed in (0, 1)]
    results += [result("retrain", seed, 0.5) for seed in (0, 1)] + [result("original", 0, 0.9)]
    frame = tidy(results)
    accuracy = frame[frame.metric == "test_accuracy"]
    assert accuracy.groupby("cell").size().to_dict() == {
        "original": 2, "reference": 2, "finetune[]": 2, "random_labels[]": 2
    }  # fmt: skip


def test_lines_are_the_original_the_retrained_and_the_methods_by_closeness_in_every_format() -> None:
    """Retraining scores 0.5: the gaps are 0.05 and 0.2, whatever their sign, and equal ones by label."""
    scores = {"ssd": 0.55, "finetune": 0.7, "scrub": 0.3, "amnesiac": 0.3}
    report = Report([result(method, 0, score) for method, score in scores.items()], COLUMNS)
    assert [report.labels[line] for line in report.lines()] == [
        "original", "retrain", "ssd", "amnesiac", "finetune", "scrub"
    ]  # fmt: skip
    words = ["original", "retrained", "selective dampening (SSD)", "amnesiac", "fine-tuning", "SCRUB"]
    assert [report.titles[line] for line in report.lines()] == words
    for text, names in (
        (report.terminal(), ["original", "retrain", "ssd", "amnesiac", "finetune", "scrub"]),
        (report.markdown(), words),
        (report.latex(), words),
    ):
        table = text.split("gap")[0]
        places = [re.search(rf"^[| ]*{re.escape(name)} ", table, re.MULTILINE) for name in names]
        found = [place.start() for place in places if place]
        assert len(found) == len(names) and found == sorted(found)
    said = "methods stand by their mean absolute gap to retraining, the closest first, in test_accuracy"
    assert said in report.terminal()


def test_closeness_is_the_mean_over_the_accuracies_of_the_table() -> None:
    """By test accuracy alone, random labels are closer; by both, fine-tuning is."""
    results = [result("finetune", 0, 0.6), result("random_labels", 0, 0.55)]
    for made, forget in zip(results, (0.1, 0.4), strict=True):
        made.scores["unlearned"]["train_forget_accuracy"] = forget  # type: ignore[index]
        made.scores["reference"]["train_forget_accuracy"] = 0.0  # type: ignore[index]
    for columns, first in (
        (["test_accuracy"], "random_labels"),
        (["test_accuracy", "train_forget_accuracy"], "finetune"),  # (0.1 + 0.1)/2 against (0.05 + 0.4)/2
        (["gradient_examples"], "finetune"),  # no accuracy is shown: all are taken
    ):
        report = Report(results, columns)
        assert report.labels[report.lines()[2]] == first


def test_lines_and_settings_stand_by_the_size_of_their_numbers() -> None:
    counts = (100, 30, 3)
    results = [
        result(
            "finetune", 0, 0.1, setting=str(count), **{"method.lr": lr, "request.scenario.count": count}
        )
        for lr in (0.01, 0.002)
        for count in counts
    ]
    report = Report(results, COLUMNS)
    text = [report.labels[line] for line in report.lines()]
    found = [line.split("(")[1].split(")")[0] for line in text if line.startswith("finetune")]
    assert found == [
        f"lr={lr}, request.scenario.count={n}" for n in (3, 30, 100) for lr in (0.002, 0.01)
    ]


def test_what_a_record_takes_is_shown_unasked() -> None:
    plain, recorded = result("finetune", 0, 0.1), result("amnesiac", 0, 0.2)
    costs = recorded.costs | {"unlearned": {"record_bytes": 5e6, "record_seconds": 2.0, "seconds": 1.0}}
    assert "record" not in Report([plain], COLUMNS).terminal()
    text = Report([plain, replace(recorded, costs=costs)], COLUMNS).terminal()
    assert "5,000,000" in text and "2.000" in text


def test_short_cells_say_how_many_seeds_they_have() -> None:
    results = [result("finetune", 0, 0.2), result("finetune", 1, 0.2), result("random_labels", 0, 0.4)]
    text = Report(results, COLUMNS).terminal()
    assert "0.400 (n=1)" in text and "0.200 ± 0.000 " in text + " "
    assert "(n=2)" in Report(results, COLUMNS, seeds=5).terminal()


def test_a_failed_run_is_reported_and_leaves_its_cell_short() -> None:
    results = [result("finetune", 0, 0.2), result("finetune", 1, 0.3), result("random_labels", 0, 0.2)]
    text = Report([*results, result("random_labels", 1, None)], COLUMNS).terminal()
    assert "random_labels, seed 1: diverged: the loss became nan" in text
    assert "0.200 (n=1)" in text


def test_runs_with_other_parameters_are_other_lines_named_by_what_differs() -> None:
    results = [result("finetune", 0, 0.2), result("finetune", 0, 0.6, **{"method.lr": 0.01})]
    found = cells(Report(results, COLUMNS))
    assert float(found["finetune (lr=0.1)", "test_accuracy"]["value"]) == 0.2
    assert float(found["finetune (lr=0.01)", "test_accuracy"]["value"]) == 0.6


def test_results_of_several_commits_are_remarked() -> None:
    other = result("finetune", 1, 0.2)
    other.provenance = {"row": PROVENANCE, "original": PROVENANCE | {"commit": "def", "threads": 2}}
    text = Report([result("finetune", 0, 0.2), other], COLUMNS).terminal()
    assert "made with different commits: abc (scores); def (original)" in text
    assert "made with different numbers of threads: 1 (scores); 2 (original)" in text


def test_settings_are_told_apart_in_every_line() -> None:
    results = [
        result("finetune", 0, 0.2, **{"pretrain.training.lr": 0.1}),
        result("finetune", 0, 0.3, setting="other", **{"pretrain.training.lr": 0.2}),
    ]
    found = {line for line, _ in cells(Report(results, COLUMNS))}
    methods = ("original", "finetune", "retrain")
    assert found == {f"{method} (training.lr={lr})" for method in methods for lr in (0.1, 0.2)}


def test_the_names_of_lines_are_no_part_of_what_they_share() -> None:
    results = []
    for model in (models := ("resnet18", "vit")):
        made = result("amnesiac", 0, 0.1, setting=model)
        results.append(
            replace(made, names={**made.names, "model": model, "variant": f"{model}_amnesiac"})
        )
    lines = {line for line, _ in cells(Report(results, COLUMNS))}
    shared = {f"{name} (model={model})" for name in ("original", "retrain") for model in models}
    assert lines == shared | {f"{model}_amnesiac" for model in models}


def test_a_published_retraining_stands_beside_the_reference() -> None:
    """The line of method=retrain is the reference of all, and has no cell of its own."""
    made = result("retrain", 0, 0.5)
    published = {("retrain", "unlearned", "test_accuracy"): Printed(0.79, "digits", "small_cnn")}
    text = Report([made], COLUMNS, published=published).markdown()
    assert "| retrain" in text and "0.500 (0.79)" in text


@pytest.mark.parametrize(("seeds", "shown"), [(None, "0.600 (n=1) (0.79)"), (1, "0.600 (0.79)")])
def test_a_published_number_stands_beside_ours_with_the_number_of_its_seeds(
    seeds: int | None, shown: str
) -> None:
    """Where it is not that of the table."""
    several = [result("finetune", seed, 0.5) for seed in (0, 1)]
    published = {
        (method, "unlearned", "test_accuracy"): Printed(0.79, "digits", "small_cnn")
        for method in ("finetune", "ssd")
    }
    text = Report([*several, result("ssd", 0, 0.6)], COLUMNS, seeds, published).terminal()
    _, below = text.split("ours (paper's)")
    (line,) = [each for each in below.splitlines() if each.startswith("ssd")]
    assert line.split(maxsplit=1)[1] == shown


def test_a_retraining_that_was_cut_short_is_a_line_of_its_own() -> None:
    whole, short = result("retrain", 0, 0.5), result("retrain", 0, 0.4, budget=10)
    short.weights = {**short.weights, "unlearned": "another"}
    found = cells(Report([whole, short], COLUMNS))
    assert float(found["retrain", "test_accuracy"]["value"]) == 0.5
    assert float(found["retrain (budget=10)", "test_accuracy"]["value"]) == 0.4


def test_all_runs_failed() -> None:
    text = Report([result("finetune", 0, None)], COLUMNS).terminal()
    assert "finetune, seed 0: diverged: the loss became nan" in text


def test_a_column_that_no_run_has_is_remarked() -> None:
    assert "no run has these columns: typo" in Report([result("finetune", 0, 0.2)], ["typo"]).terminal()


def test_default_columns_that_no_run_has_are_left_out_without_a_remark() -> None:
    default = list(composed([])[0].table.columns)
    results = [result("finetune", 0, 0.2)]
    assert "no run has" not in Report(results, default).terminal()
    text = Report(results, ["test_accuracy", "test_forget_accuracy"]).terminal()
    assert "no run has these columns: test_forget_accuracy" in text


def test_a_repaired_model_and_one_before_the_request_have_lines_that_say_so() -> None:
    made = result("sisa", 0, 0.2, **{"repair.epochs": 1})
    roles = ("original", "before", "unlearned", "repaired", "reference")
    scores = {name: {"test_accuracy": number / 10} for number, name in enumerate(roles)}
    whole = replace(
        made,
        scores=scores,
        costs={name: {} for name in roles},
        cells={name: name for name in ("before", "unlearned", "repaired")},
    )
    text = Report([whole], COLUMNS).markdown().split("gap")[0]
    lines = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert lines[2:-1] == [
        "original", "retrained", "SISA, repaired", "SISA", "SISA, before the request"
    ]  # fmt: skip


def test_options_distinguish_the_lines_of_the_roles_that_depend_on_them() -> None:
    for name in ("method.lr", "repair.epochs", "recorder.keep", "budget", "training.lr"):
        depending = {role.name for role in ROLES if role.depends_on(name)}
        own = {"before", "unlearned", "repaired"}
        expected = {"repair.epochs": {"repaired"}, "training.lr": own | {"original", "reference"}}
        assert depending == expected.get(name, own)


def test_markdown_and_latex_hold_the_same_numbers() -> None:
    report = Report([result("finetune", seed, 0.2 + seed / 10) for seed in range(3)], COLUMNS)
    assert "| fine-tuning" in report.markdown() and "0.300 ± 0.248" in report.markdown()
    assert "\\begin{tabular}" in report.latex() and r"0.300 $\pm$ 0.248" in report.latex()
    assert "\n% mean ± 95 % t-interval" in report.latex(), "remarks are comments"


def test_results_survive_writing_and_a_later_one_takes_the_place(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write(result("finetune", 0, 0.1), {})
    results.write(result("finetune", 0, 0.2), {"unlearned": {"confusion": [[1, 0], [0, 1]]}})
    (found,) = results.named("made_up")
    assert found.scores["unlearned"]["test_accuracy"] == 0.2
    alone = result("finetune", 0, 0.2)
    alone.scores = {"unlearned": {"test_accuracy": 0.2}}
    results.write(alone, {})
    assert "reference" in results.named("made_up")[0].scores, "it says the same and more"
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_former_name_of_a_variant_is_read(tmp_path: Path) -> None:
    results, made = Results(tmp_path), result("amnesiac", 0, 0.1)
    results.write(replace(made, names={**made.names, "line": "factored"}), {})
    (found,) = results.named("made_up")
    assert found.names == {**made.names, "variant": "factored"}
    assert ("factored", "test_accuracy") in cells(Report([found], COLUMNS))


def test_a_report_needs_no_sweep_and_no_torch() -> None:
    code = "import sys, runner.report.__main__; print({'torch', 'runner.sweep'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_without_columns_a_report_lists_all_that_it_may_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Results(tmp_path / "results").write(result("finetune", 0, 0.1), {})
    cfg, _ = composed([f"paths.root={tmp_path}", "table.columns=[]"])
    show(cfg, "made_up")
    lines = capsys.readouterr().out.splitlines()
    assert "gradient_examples" in lines and "test_accuracy" in lines
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize("seeds", [0, -1])
def test_a_number_of_seeds_that_no_table_has(seeds: int, tmp_path: Path) -> None:
    cfg, _ = composed([f"paths.root={tmp_path}", f"table.seeds={seeds}"])
    with pytest.raises(UserError, match=f"table.seeds={seeds}: it must be at least 1"):
        show(cfg, "made_up")


def test_unknown_names_and_torn_results_are_named(tmp_path: Path) -> None:
    results = Results(tmp_path)
    with pytest.raises(UserError, match=r"no results are named other .*: it is empty: run something"):
        results.named("other")
    results.write(result("finetune", 0, 0.1), {})
    with pytest.raises(UserError, match=r"are named mad_up .*did you mean made_up.*choose from made_up"):
        results.named("mad_up")
    (tmp_path / "made_up" / "torn.json").write_text('{"name": "ma')
