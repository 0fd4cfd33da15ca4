"""Stored results are scored again from the store alone."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.plan import Plan
from runner.results import Results
from runner.score.again import Again
from runner.score.stored import StoredPieces
from runner.stages.predict import TENSORS
from runner.store import Store
from tests.conftest import QUICK, plan_of, result_of, results_in

Quick = Callable[..., Plan]

NAME = "name=digits_small_cnn_whole_class"


def score(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runner.score", NAME, f"paths.root={root}", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_new_metrics_join_the_stored_scores_and_equal_those_of_a_run(
    quick: Quick, tmp_path: Path
) -> None:
    both = result_of(quick("metric=[accuracy,loss,confusion]", f"paths.root={tmp_path}/both"))
    result_of(quick("metric=[accuracy]", f"paths.root={tmp_path}/later"))
    done = score(tmp_path / "later", "metric=[loss,confusion]")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "\ntest_loss: Mean cross-entropy" in done.stdout, "its table has what was asked for"
    (found,) = results_in(tmp_path / "later")
    assert found.scores == both.scores and found.about == both.about
    matrices = [json.loads(path.read_text()) for path in tmp_path.glob("*/results/*/matrices/*.json")]
    assert matrices[0] == matrices[1]


def test_no_data_are_read_and_no_model_is_built(quick: Quick, tmp_path: Path) -> None:
    """Neither the weights nor the data set are needed, only predictions and the request."""
    result_of(quick("metric=[accuracy]", "evaluation.references=2"))
    for stage in ("pretrain", "unlearn"):
        shutil.rmtree(tmp_path / "store" / stage)
    done = score(tmp_path, "metric=[loss]", "data.root=nowhere")
    assert done.returncode == 0, done.stderr
    (found,) = results_in(tmp_path)
    assert found.scores["unlearned"]["test_loss"] > 0
    assert found.references["1"]["scores"]["test_loss"] > 0


def test_models_of_equal_weights_keep_the_costs_of_their_own(quick: Quick, tmp_path: Path) -> None:
    """Steps that round to nothing leave both models the original, for different numbers of examples."""
    still = ["method.lr=1e-12", "metric=[accuracy,speed_up]"]
    for epochs in (1, 4):
        result_of(quick(*still, f"method.epochs={epochs}"))

    def speed_ups() -> list[float]:
        return sorted(each.scores["unlearned"]["speed_up_examples"] for each in results_in(tmp_path))

    before = speed_ups()
    assert before[1] == 4 * before[0]
    assert score(tmp_path, "metric=[speed_up]").returncode == 0
    assert speed_ups() == before


def test_missing_evidence_is_named_and_made_when_asked_for(quick: Quick, tmp_path: Path) -> None:
    options = ["metric=[accuracy]"]
    result_of(quick(*options), *QUICK, *options)
    shutil.rmtree(tmp_path / "store" / "predict")
    done = score(tmp_path, "metric=[loss]")
    assert "loss has no predictions in 1 result: skipped; --train makes it" in done.stderr
    (found,) = results_in(tmp_path)
    assert "test_loss" not in found.scores["unlearned"] and "test_accuracy" in found.scores["unlearned"]
    assert score(tmp_path, "metric=[loss]", "--train").returncode == 0
    (found,) = results_in(tmp_path)
    assert "test_loss" in found.scores["unlearned"] and "test_accuracy" in found.scores["unlearned"]


def again(root: Path, metric: str) -> list[str]:
    """Score all results with a metric, in this process, and return what is said."""
    said: list[str] = []
    given = [f"metric=[{metric}]"]
    store, results = Store(root / "store", said.append), Results(root / "results")
    scoring = Again(store, results, plan_of(*given).metrics, said.append, given)
    for result in results_in(root):
        scoring.score(result)
    scoring.report()
    return said


def test_a_metric_that_has_its_evidence_and_no_score_is_told_as_by_a_run(
    quick: Quick, tmp_path: Path
) -> None:
    result_of(quick("metric=[accuracy]"))
    assert again(tmp_path, "rmia") == []
    (found,) = results_in(tmp_path)
    assert "no retrained model has seen the classes" in found.undefined["rmia"]


def test_damaged_predictions_give_no_scores_and_are_told_once(quick: Quick, tmp_path: Path) -> None:
    for method in ("finetune", "random_labels"):
        result = result_of(quick("metric=[loss]", f"method={method}"))
    before = [each.scores["original"] for each in results_in(tmp_path)]
    of_original = [
        made
        for made in Store(tmp_path / "store").artefacts()
        if made.stage == "predict" and made.identity["weights"] == result.weights["original"]
    ]
    for made in of_original:
        content = (made.path / TENSORS).read_bytes()
        (made.path / TENSORS).write_bytes(content[:-64] + bytes(byte ^ 0x80 for byte in content[-64:]))
    said = again(tmp_path, "accuracy,loss")
    told = [
        f"{made.path} is damaged ({TENSORS} differs from what was written): left out"
        for made in of_original
    ]
    assert sorted(said) == sorted(told)
    after = results_in(tmp_path)
    assert [each.scores["original"] for each in after] == before
    assert all("test_accuracy" in each.scores["unlearned"] for each in after)


@pytest.mark.parametrize("less", ["finetune", "random_labels"])
def test_results_that_share_models_each_have_the_scores_of_their_own_evidence(
    quick: Quick, tmp_path: Path, less: str
) -> None:
    """One of two results has no predictions of training rows, whichever is read first."""
    for method in ("finetune", "random_labels"):
        train = f"evaluation.train={str(method != less).lower()}"
        result_of(quick("metric=[accuracy]", f"method={method}", train))
    again(tmp_path, "loss")
    for result in results_in(tmp_path):
        for role in ("original", "unlearned", "reference"):
            found = result.scores[role].keys()
            assert "test_loss" in found
            assert ("train_forget_loss" in found) == (result.names["method"] != less)


def test_a_result_knows_the_command_of_its_new_scores(quick: Quick, tmp_path: Path) -> None:
    result_of(quick("metric=[accuracy]"), "seed=0", "metric=[accuracy]")
    for metric in ("loss", "accuracy", "loss,ece"):
        again(tmp_path, metric)
    (found,) = results_in(tmp_path)
    assert found.overrides == ["seed=0", "metric=[accuracy]"]
    new = ("metric=[loss]", "metric=[loss,ece]")
    assert found.also == [[*found.overrides, metric] for metric in new], "accuracy gave no new scores"


def test_a_run_that_fails_is_named_at_the_end_and_the_others_go_on(quick: Quick, tmp_path: Path) -> None:
    for seed, wrong in (("seed=0", ["method.nope=1"]), ("seed=1", [])):
        result_of(quick("metric=[accuracy]", seed), *QUICK, seed, *wrong)
    shutil.rmtree(tmp_path / "store" / "predict")
    done = score(tmp_path, "metric=[loss]", "--train")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: 1 of 2 runs failed, for the reasons above:\n  python -m runner " in done.stderr
    assert "method.nope=1" in done.stderr.splitlines()[-1]
    failed, made = results_in(tmp_path)
    assert "test_loss" not in failed.scores["unlearned"] and "test_loss" in made.scores["unlearned"]
    assert "test_loss: Mean cross-entropy" in done.stdout, "the table is of what there is"


def test_curves_of_several_lengths_are_not_compared(quick: Quick, tmp_path: Path) -> None:
    """A result has the curves of every command that scored it, in the order of their keys."""
    for batches, look in ((6, 2), (12, 4), (9, 3), (10, 5)):
        curves = [f"evaluation.curve_batches={batches}", f"evaluation.curve_look={look}"]
        result = result_of(quick("metric=[relearning]", *curves))
    pieces = StoredPieces(Store(tmp_path / "store"), results_in(tmp_path)[0])
    assert len(pieces.models) == 3 and result.scores
    for model in pieces.models:
        assert [point.batches for point in pieces.curve("relearn", model) or []] == [0, 4, 8, 12]


def test_a_name_without_results_ends_in_a_sentence(tmp_path: Path) -> None:
    done = score(tmp_path)
    assert done.returncode == 1 and "no results are named" in done.stderr


@pytest.mark.parametrize("wrong", ["metric=[nope]", "metric=nope"])
def test_an_unknown_metric_ends_in_a_sentence(wrong: str, tmp_path: Path) -> None:
    done = score(tmp_path, wrong)
    assert done.returncode == 1 and "nope" in done.stderr and "Traceback" not in done.stderr
