"""References and shadows: a plan with other seeds or a share of the data, trained once for all runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.errors import UserError
from runner.pipeline import run
from runner.plan import Plan, identities
from runner.plan.share import share_of
from runner.stages.cell import shadow_plan
from runner.store import Store, fingerprint
from tests.conftest import result_of, stages_of, weights_in

Quick = Callable[..., Plan]

FOUR = "evaluation.references=4"


def keys(root: Path, stage: str) -> set[str]:
    """Return the keys of a stage's artefacts in the store."""
    return {made.key for made in Store(root / "store").artefacts() if made.stage == stage}


def test_a_reference_of_another_seed_is_the_retrained_model_of_that_seeds_run(
    quick: Quick, tmp_path: Path
) -> None:
    result = result_of(quick(FOUR))
    assert sorted(result.references) == ["1", "2", "3"]
    stored = keys(tmp_path, "unlearn")
    other = result_of(quick(FOUR, "seed=2", "method=retrain"))
    assert keys(tmp_path, "unlearn") == stored, "the run of seed 2 retrains nothing"
    assert result.references["2"]["weights"] == other.weights["unlearned"]
    assert result.references["2"]["scores"]["test_loss"] == other.scores["reference"]["test_loss"]


def test_retraining_trains_no_original(quick: Quick, tmp_path: Path) -> None:
    result_of(quick(FOUR))
    assert len(keys(tmp_path, "pretrain")) == 1 and len(keys(tmp_path, "unlearn")) == 5


def test_a_retrained_model_is_the_same_with_and_without_an_original(quick: Quick) -> None:
    stages = stages_of(quick("method=retrain"))
    with_original = weights_in(stages.unlearn(stages.pretrain()))
    assert identities.own(stages.plan) == identities.unlearn(stages.plan, stages.plan.method, None)
    fresh = result_of(quick("method=finetune", "paths.root=" + str(stages.plan.root / "other")))
    again = weights_in(Store(stages.plan.root / "other" / "store").find(*_reference_of(stages.plan)))
    assert all(torch.equal(with_original[name], again[name]) for name in again)
    assert fresh.weights["reference"] != fresh.weights["unlearned"]


def _reference_of(plan: Plan) -> tuple[str, dict[str, object]]:
    assert plan.reference is not None
    return "unlearn", dict(identities.unlearn(plan, plan.reference, None))


def test_seeds_that_draw_their_own_request_have_references_of_their_own(
    quick: Quick, tmp_path: Path
) -> None:
    drawn = quick(FOUR, "scenario=random")
    result = result_of(drawn)
    assert result.drawn and len(keys(tmp_path, "request")) == 1
    members = [identities.unlearn(drawn.member(seed), drawn.method, None) for seed in range(3)]
    assert "request_seed" not in members[0]
    assert members[1]["request_seed"] == members[2]["request_seed"] == 0
    assert identities.request(drawn.member(2)) == identities.request(drawn)


def test_seeds_that_share_a_request_share_their_references(quick: Quick, tmp_path: Path) -> None:
    pinned = ["scenario=random", "scenario.seed=0", FOUR]
    first = result_of(quick(*pinned))
    stored = keys(tmp_path, "unlearn")
    second = result_of(quick(*pinned, "seed=1"))
    assert len(keys(tmp_path, "unlearn") - stored) == 1, "the method of seed 1 alone"
    assert not first.drawn
    assert first.references["3"]["weights"] == second.references["3"]["weights"]


def test_more_training_than_was_asked_for_is_refused_before_it_begins(
    quick: Quick, tmp_path: Path
) -> None:
    few = [FOUR, "evaluation.seconds=1e-6"]
    words = r"\(3 for evaluation\.references\), .* set evaluation\.confirm=true"
    with pytest.raises(UserError, match=words):
        run(quick(*few))
    assert not keys(tmp_path, "unlearn")
    assert result_of(quick(*few, "evaluation.confirm=true")).references


def test_a_run_with_other_metrics_adds_its_scores_to_the_result(quick: Quick, tmp_path: Path) -> None:
    first = result_of(quick("metric=[accuracy]", FOUR))
    run(quick("metric=[loss]", "evaluation=quick"))
    (stored,) = [path.read_text() for path in tmp_path.glob("results/*/*.json")]
    assert "test_accuracy" in stored and "test_loss" in stored
    assert first.references["1"]["weights"] in stored, "the references of the earlier run are kept"


def test_halves_of_shadows_are_complementary_and_half_as_large() -> None:
    rows = torch.arange(10, 31)
    for pair in range(4):
        one, other = share_of(rows, 2 * pair), share_of(rows, 2 * pair + 1)
        assert torch.equal(one.forgotten, other.left_out) and torch.equal(one.left_out, other.forgotten)
        assert abs(len(one.forgotten) - len(other.forgotten)) == 1
        assert sorted([*one.forgotten.tolist(), *other.forgotten.tolist()]) == rows.tolist()
    assert not torch.equal(share_of(rows, 0).forgotten, share_of(rows, 2).forgotten)


SHADOWS = ["evaluation.shadows=6", "scenario=random", "until=shadow"]


def test_shadows_are_trained_on_their_share_and_shared_by_methods(quick: Quick, tmp_path: Path) -> None:
    plan = quick(*SHADOWS)
    assert run(plan) is None
    assert len(keys(tmp_path, "pretrain")) == len(keys(tmp_path, "unlearn")) == 6
    made = [Store(tmp_path / "store").find("pretrain", found) for found in _originals(plan)]
    shares = {artefact.identity["data"]["share"]["left_out_sha256"] for artefact in made}
    assert len(shares) == 6, "every shadow leaves out rows of its own"
    run(quick(*SHADOWS, "method=random_labels", "seed=3"))
    assert len(keys(tmp_path, "pretrain")) == 6, "another method and seed train no more originals"
    assert len(keys(tmp_path, "unlearn")) == 12


def _originals(plan: Plan) -> list[dict[str, object]]:
    request = stages_of(plan).request
    return [dict(identities.pretrain(shadow_plan(plan, request, number))) for number in range(6)]


def test_single_shadows_warm_the_store(quick: Quick, tmp_path: Path) -> None:
    run(quick(*SHADOWS, "shadow=4"))
    (key,) = keys(tmp_path, "pretrain")
    assert key == fingerprint(_originals(quick(*SHADOWS))[4])


@pytest.mark.parametrize(
    ("overrides", "cure"),
    [
        (["evaluation.shadows=7"], "come in pairs"),
        (["evaluation.shadows=4"], "evaluation.shadows=16"),
        (["until=shadow"], "set evaluation=privacy"),
        (["evaluation.shadows=6", "shadow=6"], "numbers 0 to 5"),
        (
            ["evaluation.shadows=6", "until=shadow", "method=sisa"],
            "evaluation.shadows_with_records=true",
        ),
        (
            ["evaluation.shadows=6", "until=shadow", "method=amnesiac", "recorder=[batch_updates]"],
            "evaluation.shadows_with_records=true",
        ),
    ],
)
def test_shadows_that_cannot_be_had_are_refused_with_the_cure(
    quick: Quick, overrides: list[str], cure: str
) -> None:
    with pytest.raises(UserError, match=cure):
        quick(*overrides)


def test_a_request_of_one_row_has_no_halves(quick: Quick, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one row has no half .* set evaluation.shadows=0"):
        run(quick(*SHADOWS, "scenario.count=1"))
    assert not keys(tmp_path, "pretrain")


def test_references_of_other_threads_are_named_before_the_training(
    quick: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    result_of(quick(FOUR))
    assert capsys.readouterr().err == ""
    result_of(quick(FOUR, "threads=2", "method=random_labels"))
    told = capsys.readouterr().err
    assert "stored models were made with threads=1, and this run has threads=2" in told
    assert "set threads, or another paths.root" in told
