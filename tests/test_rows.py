"""A row says what was done: where references start, what a command made, and what is refused."""

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.errors import UserError
from methods.base import Facts, Method
from methods.training.loop import fit
from runner.pipeline import run
from runner.plan import Plan, identities
from runner.plan.build import build
from runner.report import Report
from runner.results import Results
from runner.store import fingerprint
from tests.composing import composed_once
from tests.conftest import (
    LEARNED,
    METHODS,
    QUICK,
    batch_sizes,
    conditions_of,
    needs_scenario,
    plan_of,
    result_of,
    results_in,
    same,
    stages_of,
    state_of,
    weights_file,
)

Quick = Callable[..., Plan]


@pytest.fixture
def given(quick: Quick) -> tuple[list[str], Path]:
    """Options that start the original at a file, of weights that have seen every row; and the file."""
    file = weights_file(stages_of(quick(*LEARNED, "seed=9")).pretrain())
    digest = sha256(file.read_bytes()).hexdigest()
    return [f"model.weights={file}", f"model.sha256={digest}", "training.lr=0.001"], file


# References of an original that begins with a file of weights


def test_a_reference_starts_at_the_originals_weights_and_says_so_before_training(
    quick: Quick, given: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    made = result_of(quick(*given[0]))
    said = capsys.readouterr().err
    assert "if these weights have seen the rows to forget, it is no reference" in said
    assert "reference.weights=null" in said
    assert made.reference_from == "weights"
    assert made.scores["reference"]["train_forget_accuracy"] > 0.9, "it has seen them"
    assert "retrain: starts from a file of weights" in Report([made], ["test_loss"]).terminal()


def test_a_reference_from_scratch_is_that_of_a_run_without_weights(
    quick: Quick, given: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = result_of(quick("training.lr=0.001", "evaluation.references=2"))
    capsys.readouterr()
    made = result_of(quick(*given[0], "reference.weights=null", "evaluation.references=2"))
    assert "no reference" not in capsys.readouterr().err
    assert (plain.reference_from, made.reference_from) == ("scratch", "scratch")
    assert made.weights["reference"] == plain.weights["reference"]
    assert made.references["1"]["weights"] == plain.references["1"]["weights"]
    assert made.weights["original"] != plain.weights["original"]


def test_a_row_of_other_references_takes_the_place_of_the_earlier_and_says_so(
    quick: Quick, given: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result_of(quick(*given[0]))
    assert "name=… keeps both" not in capsys.readouterr().err
    result_of(quick(*given[0], "reference.weights=null"))
    assert "held this model beside other retrained ones" in capsys.readouterr().err


def test_a_reference_starts_at_a_file_of_its_own(quick: Quick, given: tuple[list[str], Path]) -> None:
    other = weights_file(stages_of(quick("seed=7")).pretrain())
    digest = sha256(other.read_bytes()).hexdigest()
    own = [f"reference.weights={other}", f"reference.sha256={digest}"]
    made, same = result_of(quick(*given[0], *own)), result_of(quick(*given[0]))
    assert made.reference_from == "weights" and made.weights["original"] == same.weights["original"]
    assert made.weights["reference"] != same.weights["reference"]
    assert made.setting != same.setting, "they are compared with other models"
    with pytest.raises(UserError) as refused:
        quick(*given[0], own[0])
    assert str(refused.value).startswith(f"{own[0]} has sha256 {digest}, but reference.sha256 is ")
    other.unlink()
    with pytest.raises(UserError, match=r"^reference\.weights=.*model\.safetensors does not exist"):
        quick(*given[0], *own)


def test_only_a_reference_of_other_weights_changes_a_key(
    quick: Quick, given: tuple[list[str], Path]
) -> None:
    plan, scratch = quick(*given[0]), quick(*given[0], "reference.weights=null")
    assert quick().of_reference() == quick() and plan.of_reference() is plan
    assert identities.own(plan) == identities.own(scratch)
    assert fingerprint(identities.pretrain(plan)) == fingerprint(identities.pretrain(scratch))
    assert identities.compared_on(plan) == identities.setting(plan)
    copy = given[1].with_name("copy.safetensors")
    copy.write_bytes(given[1].read_bytes())
    same = quick(*given[0], f"reference.weights={copy}")
    assert identities.compared_on(same) == identities.compared_on(plan), "the same weights elsewhere"


# A second run of the same name


FULL = ["evaluation.references=2"]


@pytest.mark.parametrize(
    "less",
    [
        ["evaluation=quick"],
        ["evaluation=test_only"],
        ["metric=[loss]"],
        ["evaluation.references=1"],
        ["evaluation.batch_size=7", "metric=[accuracy]"],
        ["table.columns=[test_accuracy]", "metric=[accuracy]"],
        ["evaluation.confirm=true", "metric=[accuracy]"],
    ],
    ids=" ".join,
)
def test_less_evaluation_leaves_a_row_its_scores_and_the_command_that_makes_them(
    quick: Quick, less: list[str]
) -> None:
    full = result_of(quick(*FULL), *FULL)
    result_of(quick(*FULL, *less), *FULL, *less)
    (kept,) = results_in(quick().root)
    assert names(kept.scores) == names(full.scores) and kept.references.keys() == full.references.keys()
    assert kept.overrides == FULL and kept.also == []
    assert (kept.setting, kept.reference_from) == (full.setting, "scratch")


def test_more_evaluation_takes_the_place_of_less(quick: Quick) -> None:
    result_of(quick("evaluation=quick"), "evaluation=quick")
    full = result_of(quick(), "all")
    (kept,) = results_in(quick().root)
    assert names(kept.scores) == names(full.scores)
    assert (kept.overrides, kept.also, kept.reference_from) == (["all"], [], "scratch")


def test_commands_that_each_make_some_scores_are_all_kept(quick: Quick) -> None:
    for metric in ("accuracy", "loss", "closeness"):
        result_of(quick(f"metric=[{metric}]"), f"metric=[{metric}]")
    (kept,) = results_in(quick().root)
    assert kept.overrides == ["metric=[closeness]"]
    assert kept.also == [["metric=[accuracy]"], ["metric=[loss]"]]
    full = result_of(quick(), "all")
    (kept,) = results_in(quick().root)
    assert (kept.overrides, kept.also) == (["all"], []) and names(kept.scores) >= names(full.scores)


def test_a_row_of_other_weights_with_fewer_scores_is_told_and_not_written(
    quick: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    full = result_of(quick())
    results = Results(quick().root / "results")
    poorer = replace(
        full,
        weights=dict.fromkeys(full.weights, "others"),
        scores={"unlearned": {"test_accuracy": 0.1}},
    )
    results.write(poorer, {})
    assert "keeps its earlier scores: this run has other weights" in capsys.readouterr().err
    assert results_in(quick().root)[0].scores == full.scores
    richer = replace(full, weights=dict.fromkeys(full.weights, "others"))
    results.write(richer, {})
    assert results_in(quick().root)[0].weights == richer.weights


def test_remarks_on_few_predictions_do_not_outlive_more(quick: Quick) -> None:
    """A row says that no prediction moved if the run that scored most says it."""
    full = result_of(quick())
    results = Results(quick().root / "results")
    flagged = {"unlearned": {**full.costs["unlearned"], "moved_no_prediction": 1.0}}
    results.write(replace(full, scores={"unlearned": {"test_loss": 1.0}}, costs=flagged), {})
    assert results_in(quick().root)[0].costs == full.costs


def names(scores: Any) -> set[tuple[str, str]]:
    return {(role, name) for role, found in scores.items() for name in found}


# Threads


def test_a_row_and_its_table_say_with_how_many_threads_each_model_was_made(
    quick: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    run(quick("threads=2"))
    capsys.readouterr()
    made = result_of(quick("threads=1", "method=ssd"))
    assert {role: each["threads"] for role, each in made.provenance.items()} == {
        "row": 1, "original": 2, "unlearned": 1, "reference": 2
    }  # fmt: skip
    assert "made with threads=2, and this run has threads=1" in capsys.readouterr().err
    text = Report([made], ["test_accuracy"]).terminal()
    assert "numbers of threads: 1 (scores, ssd); 2 (original, retrain)" in text


def test_a_record_of_other_threads_names_the_cure(quick: Quick) -> None:
    run(quick("threads=2", "until=pretrain"))
    with pytest.raises(UserError, match=r"set threads=2, or another paths\.root"):
        run(quick("threads=1", "recorder=[batch_updates]", "until=record"))


# Costs


class SlowlyCompiled(nn.Module):
    """A stand-in for a compiled model: it takes half a second for each new shape of a batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, set[torch.Size]()

    def forward(self, images: Tensor) -> Any:
        if images.shape not in self.seen:
            self.seen.add(images.shape)
            time.sleep(0.5)
        return self.model(images)


def test_compilation_is_a_cost_apart(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 rows in batches of 64 have two shapes."""
    monkeypatch.setattr(torch, "compile", SlowlyCompiled)
    plain = result_of(quick("evaluation=quick", "method=original"))
    compiled = result_of(quick("evaluation=quick", "method=original", "training.compile=true"))
    cost = compiled.costs["original"]
    assert cost["compile_seconds"] >= 1 > cost["seconds"]
    assert plain.costs["original"]["compile_seconds"] == 0
    assert plain.weights["original"] == compiled.weights["original"]


def test_a_warm_up_leaves_no_trace(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the statistics of a normalisation, nor in the random numbers of a dropout."""
    monkeypatch.setattr(torch, "compile", lambda model: model)

    def trained(compile: str) -> dict[str, Tensor]:
        plan = quick(f"training.compile={compile}", "training.epochs=2")
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        conditions = conditions_of(plan)
        with conditions.meter:
            fit(model, stages_of(plan).dataset.train, plan.recipe, conditions)
        return state_of(model)

    assert same(trained("true"), trained("false"))


@pytest.mark.parametrize(
    "chosen",
    [
        ["method=amnesiac", "recorder=[batch_updates]"],
        ["method=per_sample_amnesiac", "recorder=[per_sample]"],
        ["method=sisa"],
    ],
    ids=" ".join,
)
def test_costs_that_the_inputs_decide_are_equal_in_identical_runs(
    tmp_path: Path, chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of digits of the seconds, and the name of the machine."""

    def costs(root: str) -> list[dict[str, float]]:
        plan = plan_of(*QUICK, *chosen, "evaluation=quick", f"paths.root={tmp_path / root}")
        found = result_of(plan).costs
        counted = ("record_bytes", "gradient_examples", "forward_examples")
        return [{name: role[name] for name in counted if name in role} for role in found.values()]

    first = costs("a")
    assert any(role.get("record_bytes", 0) > 0 for role in first)
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    monkeypatch.setattr(platform, "machine", lambda: "another machine")
    assert costs("b") == first


# A batch that is larger than a part of the rows


@pytest.mark.parametrize(
    "method",
    ["negative_gradient", "scrub", "salun", "boundary_shrink", "delete_kl", "dual_phase_ascent"],
)
def test_a_batch_of_more_rows_than_there_are_is_of_all_of_them(
    quick: Quick, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = [name for name in composed_once(f"method={method}")[0].method if "batch_size" in str(name)]

    def of(rows: int) -> Plan:
        sizes = [f"method.{name}={rows}" for name in fields]
        return quick(f"method={method}", "method.epochs=1", "evaluation=quick", *sizes)

    large = result_of(of(1000))
    assert large.costs["unlearned"]["clamped_batch"] == 20, "the rows of the class"
    assert "batches are of the 20 rows of that part" in capsys.readouterr().err
    assert f"batch: {method} (seed 0)" in Report([large], ["test_accuracy"]).terminal()
    assert "clamped_batch" not in result_of(of(20)).costs["unlearned"]


def test_no_method_refuses_a_request_that_is_smaller_than_its_batch() -> None:
    plan = plan_of()
    facts = Facts(100, 1, 99, [3], False, 10, plan.recipe, plan.outline)
    for name in METHODS:
        method = build(composed_once(f"method={name}")[0].method, Method, "method")
        large = replace(method, **dict.fromkeys(batch_sizes(method), 10**6))  # type: ignore[type-var]
        large.check(replace(facts, relabels=needs_scenario(name) == ["scenario=relabel"]))


# Settings that contradict each other


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.schedule=step"], "training.schedule=step has no epoch to step at"),
        (["method.schedule=step"], "method.schedule=step has no epoch to step at"),
        (["training.epochs=1", "training.warmup=5"], "training.warmup=5 takes all of training.epochs=1"),
        (["model.sha256=0123"], "checksum of model.weights, which is not set: set both, or neither"),
        (["evaluation.shadows=6", "metric=[ulira]", "shadow=6"], "has the numbers 0 to 5"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(*overrides)
    assert words in str(refused.value)
