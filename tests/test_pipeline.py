"""Whole runs: they share what they can, make nothing twice, and leave one result each."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from data.errors import UserError
from data.sources import Digits
from data.split import Dataset
from methods.training.divergence import Diverged
from runner.pipeline import run
from runner.plan import Plan
from runner.report import Report
from runner.results import Results
from runner.store import Artefact, Store
from tests.conftest import LEARNED, result_of, results_in, stages_of

Quick = Callable[..., Plan]


def made(plan: Plan) -> dict[str, int]:
    """How many artefacts of each stage the store holds."""
    stages = [artefact.stage for artefact in Store(plan.root / "store").artefacts()]
    return {stage: stages.count(stage) for stage in sorted(set(stages))}


def test_a_run_scores_the_original_the_unlearned_and_the_reference(quick: Quick) -> None:
    result = result_of(quick(*LEARNED), "some=override")
    assert set(result.scores) == set(result.costs) == {"original", "unlearned", "reference"}
    for scores in result.scores.values():
        assert {"train_forget_accuracy", "test_accuracy", "test_loss", "class_3_accuracy"} <= set(scores)
    assert result.scores["original"]["train_forget_accuracy"] > 0.8
    assert result.scores["reference"]["train_forget_accuracy"] == 0.0, "it never saw the class"
    assert result.costs["original"]["gradient_examples"] == 200 * 30
    assert result.costs["reference"]["gradient_examples"] == 180 * 30
    assert result.overrides == ["some=override"] and result.provenance["original"]["torch"]


def test_methods_and_scenarios_share_what_they_can(quick: Quick) -> None:
    for method in ("original", "retrain", "finetune"):
        plan = (
            quick(f"method={method}", "method.epochs=1")
            if method == "finetune"
            else quick(f"method={method}")
        )
        result_of(plan)
    # One original, one retrained reference; predictions of original, retrained and finetuned.
    assert made(plan) == {"request": 1, "pretrain": 1, "unlearn": 3, "predict": 6}
    result_of(quick("scenario.classes=[5]", "method=original"))
    assert made(plan) == {"request": 2, "pretrain": 1, "unlearn": 5, "predict": 8}


def test_a_second_run_computes_nothing_and_writes_the_same_result(quick: Quick) -> None:
    first = result_of(quick())
    times = {a.path: (a.path / "checksums.json").stat().st_mtime_ns for a in _artefacts(quick())}
    second = result_of(quick())
    assert (first.scores, first.costs, first.key) == (second.scores, second.costs, second.key)
    assert times == {a.path: (a.path / "checksums.json").stat().st_mtime_ns for a in _artefacts(quick())}


def _artefacts(plan: Plan) -> list:  # type: ignore[type-arg]
    return Store(plan.root / "store").artefacts()


def test_until_pretrain_warms_the_store(quick: Quick) -> None:
    assert run(quick("until=pretrain")) is None
    assert made(quick()) == {"request": 1, "pretrain": 1}
    assert not list((quick().root / "results").glob("*/*.json"))


def test_a_source_that_draws_loads_the_same_whatever_is_stored(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request loads the data, or, if that is stored, the training does."""
    drawn: list[float] = []
    load = Digits.load

    def drawing(self: Digits, root: Path, download: bool) -> Dataset:
        drawn.append(torch.rand(1).item())
        return load(self, root, download)

    monkeypatch.setattr(Digits, "load", drawing)
    before = torch.get_rng_state()
    for epochs in (1, 2):
        run(quick("until=pretrain", f"training.epochs={epochs}"))
    assert len(drawn) == 2 and drawn[0] == drawn[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_reference(quick: Quick) -> None:
    result = result_of(quick("evaluation=quick"))
    assert set(result.scores) == {"original", "unlearned"} and made(quick())["unlearn"] == 1


def test_the_reference_of_a_relabelling_learns_the_new_labels(quick: Quick) -> None:
    plan = quick("scenario=relabel", *LEARNED, "data.limit=40")
    scores = result_of(plan).scores
    assert scores["original"]["test_forget_accuracy"] > 0.8
    assert scores["reference"]["test_relabelled"] > 0.8
    assert scores["reference"]["test_forget_accuracy"] == 0.0


def test_random_rows_have_no_test_rows_of_their_kind(quick: Quick) -> None:
    scores = result_of(quick("scenario=random")).scores["unlearned"]
    assert "test_forget_accuracy" not in scores
    assert scores["test_retain_accuracy"] == scores["test_accuracy"]


def test_a_budget_bounds_the_method_and_not_the_reference(quick: Quick) -> None:
    costs = result_of(quick("budget.gradient_examples=130", "training.epochs=2")).costs
    assert costs["unlearned"]["gradient_examples"] == 128
    assert costs["reference"]["gradient_examples"] == 180 * 2
    assert costs["original"]["gradient_examples"] == 200 * 2


def test_a_result_says_with_what_each_model_was_made(quick: Quick) -> None:
    run(quick("until=pretrain"))
    result = result_of(quick("threads=2"))
    assert {role: made["threads"] for role, made in result.provenance.items()} == {
        "row": 2, "original": 1, "unlearned": 2, "reference": 2
    }  # fmt: skip


def test_divergence_is_a_result(quick: Quick) -> None:
    """The run fails with a sentence; its result says so; the original is kept."""
    plan = quick("method.lr=1e6", "method.epochs=50", "method.batch_size=60")
    with pytest.raises(Diverged, match=r"unlearn: .* in epoch"):
        run(plan)
    (result,) = results_in(plan.root, plan.name)
    assert result.status == "diverged" and result.error and "lower the learning rate" in result.error
    assert made(plan)["pretrain"] == 1 and "unlearn" not in made(plan)


def test_a_run_that_diverges_leaves_the_result_of_one_that_did_not(quick: Quick) -> None:
    """The same run, but for what was asked beside it: another recorder, or a reference that blows up."""
    plan = quick("evaluation=quick")
    result, results = result_of(plan), Results(plan.root / "results")
    results.write(replace(result, status="diverged", scores={}, costs={}, weights={}), {})
    assert [kept.status for kept in results_in(plan.root, plan.name)] == ["done"]


@pytest.mark.parametrize("rate", [1e38, 1e30])
def test_a_last_step_that_blows_up_is_a_divergence(quick: Quick, rate: float) -> None:
    """No loss is computed after the last update; the weights and the outputs are checked."""
    plan = quick("method.batch_size=180", "method.epochs=1")
    method = replace(plan.method, lr=rate)  # type: ignore[call-arg]  # beyond the bounds of an option
    plan = replace(plan, method=method)
    with pytest.raises(Diverged, match="no longer finite"):
        run(plan)
    (result,) = results_in(plan.root, plan.name)
    assert result.status == "diverged"


def test_an_original_that_learned_nothing_is_reported(
    quick: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    result_of(quick("training.epochs=5"))
    assert capsys.readouterr().err == ""
    result_of(quick("training.epochs=5", "training.lr=1"))  # too much: all rows become one class
    assert "every test row the same class" in capsys.readouterr().err


def test_confusion_matrices_lie_beside_the_results(quick: Quick) -> None:
    plan = quick()
    result = result_of(plan)
    (path,) = plan.root.glob(f"results/*/matrices/{result.key}-*.json")
    confusion = json.loads(path.read_text())["unlearned"]["confusion"]
    right = sum(confusion[k][k] for k in range(10))
    assert right / sum(map(sum, confusion)) == pytest.approx(result.scores["unlearned"]["test_accuracy"])


def test_results_that_cannot_be_written_are_refused_before_work(quick: Quick, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file.*paths\.root"):
        run(quick(f"paths.root={tmp_path / 'file'}"))


def test_a_repair_is_a_line_of_its_own_and_shares_what_it_repairs(quick: Quick) -> None:
    plain = result_of(quick("method=random_labels"))
    result = result_of(quick("method=random_labels", "repair=epochs", "repair.epochs=2"))
    assert made(plan := quick("method=random_labels")) | {"repair": 1, "unlearn": 2} == made(plan)
    assert result.scores["unlearned"] == plain.scores["unlearned"]
    spent = (
        result.costs["repaired"]["gradient_examples"] - result.costs["unlearned"]["gradient_examples"]
    )
    assert spent == 180 * 2
    assert result.weights["repaired"] != result.weights["unlearned"]
    lines = Report([plain, result], ["test_accuracy"]).csv()
    names = [line.rsplit(",test_accuracy,")[0] for line in lines.splitlines()]
    assert {"original", "random_labels", '"random_labels, repaired"', "retrain"} <= set(names)


def test_a_repair_stops_where_the_original_stood(quick: Quick) -> None:
    """Nothing is damaged by method=original: the first full window has recovered."""
    learned = [*LEARNED, "method=original"]
    plan = quick(*learned, "repair=recovered", "repair.batch_size=10", "repair.lr=0.001")
    stages = stages_of(plan)
    made = stages.repair(stages.unlearn(stages.pretrain()))
    (stop,) = (point for point in made.read("curves.json") if "recovered_at_step" in point)
    assert 31 <= stop["recovered_at_step"] < 72


def test_a_repair_has_recovered_at_the_goal_itself(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.8 − 0.1 is above 0.7 by rounding."""
    assert 0.8 - 0.1 > 0.7
    shares = chain([0.8], repeat(0.7))
    monkeypatch.setattr("methods.repair.accuracy", lambda *given: next(shares))
    sizes = ["repair.batch_size=5", "repair.epochs=1", "repair.recovered=0.1"]
    stages = stages_of(quick("method=original", "repair=recovered", *sizes))
    made = stages.repair(stages.unlearn(stages.pretrain()))
    assert {"recovered_at_step": 31, "goal": 0.8 - 0.1} in made.read("curves.json")


def test_a_repair_spends_what_the_budget_leaves(quick: Quick) -> None:
    result = result_of(quick("method=random_labels", "repair=epochs", "budget.gradient_examples=300"))
    assert result.costs["repaired"]["gradient_examples"] <= 300


def test_scores_of_the_test_rows_alone_leave_fuller_ones_as_they_are(quick: Quick) -> None:
    few = result_of(quick("evaluation=test_only"))
    assert "train_forget_accuracy" not in few.scores["unlearned"]
    many = result_of(quick())
    assert result_of(quick("evaluation=test_only")).scores["unlearned"] == few.scores["unlearned"]
    (kept,) = results_in(quick().root, few.name)
    assert kept.scores == many.scores


@pytest.mark.parametrize(
    ("method", "options", "passes"),
    [
        ("finetune", ["method.epochs=3"], 3),
        ("retrain", ["evaluation=quick"], 2),
        ("scrub", ["method.epochs=2", "method.ascent_epochs=1", "method.forget_batch_size=8"], 3),
        # its teacher's pass is not its own
        ("reverse_kl", ["method.epochs=2", "method.strengthen_epochs=1"], 2),
        ("just_in_time", ["method.epochs=2"], 2),  # which trains a model inside another
        ("boundary_expand", ["method.epochs=2"], 2),  # which has one output too many for a while
        ("distruction", ["method.epochs=2", "recorder=[bayesian]"], 2),
    ],
)
def test_scores_along_the_way_end_in_the_results_own_and_change_nothing(
    quick: Quick, method: str, options: list[str], passes: int
) -> None:
    chosen = [f"method={method}", "training.epochs=2", *options]
    if method != "retrain":
        chosen.append("method.batch_size=8")
    plain, plan = result_of(quick(*chosen)), quick(*chosen, "evaluation.every=1")
    result = result_of(plan)
    assert (result.key, result.weights, result.cells) == (plain.key, plain.weights, plain.cells)
    scored = scored_passes(plan, result)
    assert [point["pass"] for point in scored] == list(range(1, passes + 1))
    last = dict(scored[-1])
    assert last.pop("pass") == passes
    # the looks have a fixed list of metrics, whatever others the result has
    assert last == {name: result.scores["unlearned"][name] for name in last} and "test_loss" in last
    assert "pass" not in result.costs["unlearned"]


def test_every_second_pass_is_scored_and_the_reference_is_trained_once(quick: Quick) -> None:
    result_of(quick())
    plan = quick("evaluation.every=2")
    assert [point["pass"] for point in scored_passes(plan, result_of(plan))] == [2, 4]
    assert made(plan)["unlearn"] == 3, "the method's own twice, with and without"


def test_passes_that_the_budget_forbids_are_not_scored(quick: Quick) -> None:
    options = ["method.epochs=40", "method.batch_size=8", "budget.gradient_examples=200"]
    plan = quick(*options, "evaluation.every=1")
    assert [point["pass"] for point in scored_passes(plan, result_of(plan))] == [1, 2]


def scored_passes(plan: Plan, result: Any) -> list[dict[str, float]]:
    """Return the scores of the run's own model while it was made."""
    store = plan.root / "store"
    used = [Artefact(stage, key, store / stage / key) for stage, key in result.artefacts]
    logged = [point for each in used if each.stage == "unlearn" for point in each.read("curves.json")]
    return [point for point in logged if "pass" in point]
