"""SISA: exact, local, resumable, and paid by the slice."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from methods.sisa import Ensemble, Sisa, epochs_of_slices
from runner.plan import Plan
from runner.stages.checkpoint import StoredCheckpoint
from runner.stages.workspace import content_bytes
from runner.store import Artefact, Store
from tests.conftest import (
    LEARNED,
    Stages,
    checksum_of,
    result_of,
    stages_of,
    unlearned_of,
    weights_in,
)

Quick = Callable[..., Plan]
SHAPE = ["method.shards=4", "method.slices=2"]
SISA = ["method=sisa", *SHAPE, "training.epochs=3", "training.batch_size=10"]


def before(stages: Stages) -> Artefact:
    """Return SISA's ensemble of all rows, before any request."""
    return stages.initial_training()


def count(plan: Plan, stage: str) -> int:
    return sum(artefact.stage == stage for artefact in Store(plan.root / "store").artefacts())


def one_row(folder: Path) -> list[str]:
    file = folder / "rows.txt"
    file.write_text("17\n")
    return ["scenario=given_rows", f"scenario.file={file}"]


@pytest.mark.parametrize("epochs", [2, 3, 4])
def test_training_costs_what_the_recipe_costs(quick: Quick, epochs: int) -> None:
    """About 2E/(R + 1) epochs of slices 1…r, r = 1…R: E epochs of every shard."""
    stages = stages_of(quick(*SISA, f"training.epochs={epochs}"))
    assert before(stages).read("cost.json")["gradient_examples"] == epochs * 200


@given(st.integers(0, 200), st.integers(1, 12))
def test_slices_share_the_epochs(epochs: int, slices: int) -> None:
    each = epochs_of_slices(epochs, slices)
    seen = sum(r * each[r - 1] for r in range(1, slices + 1))
    enough = epochs == 0 or 2 * epochs >= slices + 1
    assert seen == slices * epochs if enough else each == [1] * slices
    assert len(each) == slices and max(each) - min(each) <= 1


def test_one_row_retrains_one_shard_from_its_slice_on(quick: Quick, tmp_path: Path) -> None:
    stages = stages_of(quick(*SISA, *one_row(tmp_path)))
    kept, made = before(stages), stages.unlearn(stages.pretrain())
    assert count(stages.plan, "slice") in (4 * 2 + 1, 4 * 2 + 2), "the first or the second slice is hit"
    (point,) = [p for p in made.read("curves.json") if "shards_hit" in p]
    assert point["shards_hit"] == 1 and point["slices_retrained"] in (1, 2)
    a, b = weights_in(kept), weights_in(made)
    changed = {name.split(".")[1] for name in a if not torch.equal(a[name], b[name])}
    assert len(changed) == 1, "the members of the other shards are the same bits"
    slices = {1: 2 * 49, 2: 2 * 24 + 2 * 49}
    assert made.read("cost.json")["gradient_examples"] == slices[point["slices_retrained"]]


def test_unlearning_is_training_without_the_rows(quick: Quick, tmp_path: Path) -> None:
    """If the forgotten row's pixels change, the unlearned model keeps its bits."""
    request = one_row(tmp_path)
    clean = stages_of(quick(*SISA, *request))
    poisoned = stages_of(quick(*SISA, *request, f"paths.root={tmp_path / 'poisoned'}"))
    train = poisoned.dataset.train
    train.images[train.rows == 17] = 0
    a, b = (stages.unlearn(stages.pretrain()) for stages in (clean, poisoned))
    assert checksum_of(a) == checksum_of(b)
    assert checksum_of(before(clean)) != checksum_of(before(poisoned))


def test_a_result_says_that_the_budget_cut_a_slice_short(quick: Quick) -> None:
    whole = result_of(quick(*SISA)).costs["unlearned"]
    enough = result_of(quick(*SISA, f"budget.gradient_examples={whole['gradient_examples']}"))
    less = result_of(quick(*SISA, f"budget.gradient_examples={whole['gradient_examples'] - 1}"))
    assert "cut_by_budget" not in {**whole, **enough.costs["unlearned"]}
    assert less.costs["unlearned"]["cut_by_budget"] == 1


def test_a_slice_that_a_budget_has_cut_serves_no_other_budget(quick: Quick, tmp_path: Path) -> None:
    """Of 60 rows, 10 a batch, 25 and 45 examples pay for 2 and 4 steps and leave 5 to the next slice."""
    options = [*SISA, "method.shards=1", "method.slices=3", "evaluation=quick"]

    def after(root: str, *budgets: int) -> str:
        for examples in budgets:
            budget = f"budget.gradient_examples={examples}"
            made = result_of(quick(*options, budget, f"paths.root={tmp_path / root}"))
        return made.weights["unlearned"]

    alone = after("alone", 45)
    assert after("both", 25, 45) == alone != after("other", 25)


def test_a_budget_that_is_enough_trains_no_slice_again(quick: Quick) -> None:
    stages = stages_of(quick(*SISA))
    stages.unlearn(stages.pretrain())
    trained = count(stages.plan, "slice")
    enough = stages_of(quick(*SISA, "budget.gradient_examples=100000"))
    enough.unlearn(enough.pretrain())
    assert count(stages.plan, "slice") == trained


def test_a_budget_that_has_ended_a_slice_ends_the_work(quick: Quick) -> None:
    """The first shard's second slice has no batch of 64 in the 63 examples that its first one leaves.
    The second shard's first slice has fewer rows, and takes none of them either."""
    sizes = ["method.shards=2", "training.batch_size=64"]
    whole = stages_of(quick(*SISA, *sizes))
    whole.unlearn(whole.pretrain())
    costs = {}
    for made in Store(whole.plan.root / "store").artefacts():
        if made.stage == "slice":
            own = made.identity["slice"]
            costs[own["shard"], own["slice"]] = made.read("cost.json")["gradient_examples"]
    first = costs[0, 0]
    assert costs[1, 0] // 2 < 63, "one of two epochs"
    less = stages_of(quick(*SISA, *sizes, f"budget.gradient_examples={first + 63}"))
    assert less.unlearn(less.pretrain()).read("cost.json")["gradient_examples"] == first


def test_a_cost_does_not_depend_on_what_was_kept(quick: Quick, tmp_path: Path) -> None:
    request = one_row(tmp_path)
    first = stages_of(quick(*SISA, *request))
    before(first)
    warm = first.unlearn(first.pretrain()).read("cost.json")
    cold = stages_of(quick(*SISA, *request, f"paths.root={tmp_path / 'cold'}"))
    assert (
        cold.unlearn(cold.pretrain()).read("cost.json")["gradient_examples"] == warm["gradient_examples"]
    )


def test_an_interrupted_training_goes_on_at_its_last_slice(quick: Quick) -> None:
    plan = quick(*SISA)

    def interrupt(self: StoredCheckpoint) -> None:
        if count(plan, "slice") == 5:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StoredCheckpoint, "step_ended", interrupt)
        before(stages_of(plan))
    assert count(plan, "slice") == 5
    made = before(stages_of(plan))
    assert count(plan, "slice") == 8
    assert made.read("cost.json")["gradient_examples"] == 600


def test_sharding_by_class_confines_a_request_for_a_class(quick: Quick) -> None:
    hit = {}
    for sharding in ("uniform", "by_class"):
        stages = stages_of(quick(*SISA, f"method.sharding={sharding}", "method.shards=5"))
        curves = stages.unlearn(stages.pretrain()).read("curves.json")
        (hit[sharding],) = [point["shards_hit"] for point in curves if "shards_hit" in point]
    assert hit == {"uniform": 5, "by_class": 1}


def test_a_request_that_hits_all_shards_is_served_with_a_warning(
    quick: Quick, caplog: pytest.LogCaptureFixture
) -> None:
    stages = stages_of(quick(*SISA))
    stages.unlearn(stages.pretrain())
    assert "the request hits all 4 shards" in caplog.text


def test_a_shard_that_loses_all_its_rows_leaves_the_ensemble(quick: Quick) -> None:
    options = ["method.shards=10", "method.slices=1", "method.sharding=by_class"]
    result = result_of(quick(*SISA, *options, "repair=epochs", "repair.epochs=1"))
    assert result.scores["unlearned"]["train_forget_accuracy"] == 0.0
    stages = stages_of(quick(*SISA, *options))
    state = unlearned_of(stages)
    assert len({name.split(".")[1] for name in state if name.startswith("members")}) == 9


def test_the_ensemble_before_the_request_is_a_line_of_its_own(quick: Quick) -> None:
    scores = result_of(quick(*SISA, *LEARNED)).scores
    assert {"original", "before", "unlearned", "reference"} == set(scores)
    assert scores["before"]["train_forget_accuracy"] > 0.5
    assert scores["unlearned"]["train_forget_accuracy"] == 0.0


def test_what_it_keeps_for_requests_is_reported_as_a_record(quick: Quick) -> None:
    plan = quick(*SISA)
    before(stages_of(plan))
    artefacts = Store(plan.root / "store").artefacts()
    kept = sum(content_bytes(artefact) for artefact in artefacts if artefact.stage == "slice")
    assert kept > 0
    costs = result_of(plan).costs
    assert costs["before"]["record_bytes"] == costs["unlearned"]["record_bytes"] == kept
    # 2 shards of 2 epochs each are as many examples as the original's: the ensemble adds no training
    assert costs["before"]["gradient_examples"] == costs["original"]["gradient_examples"]
    assert costs["unlearned"]["record_seconds"] == 0


def test_examples_beyond_the_originals_take_their_share_of_the_seconds(quick: Quick) -> None:
    """Three slices take an epoch each, 1/3 + 2/3 + 1 epochs of the shard, where the original takes 1."""
    costs = result_of(quick(*SISA, "method.shards=1", "method.slices=3", "training.epochs=1")).costs
    taken, original = (costs[role]["gradient_examples"] for role in ("before", "original"))
    assert taken > original > 0
    share = (taken - original) / taken
    assert costs["unlearned"]["record_seconds"] == pytest.approx(share * costs["before"]["seconds"])


def test_more_shards_than_rows_are_refused_before_training(quick: Quick) -> None:
    stages = stages_of(quick(*SISA, "method.shards=101"))
    with pytest.raises(UserError, match=r"method\.shards=101 of method\.slices=2 are more than the 200"):
        _ = stages.request
    assert isinstance(stages.plan.method, Sisa)


class Fixed(torch.nn.Module):
    """Answer every image with the same probabilities."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def test_members_answer_by_mean_or_by_vote() -> None:
    members = [Fixed(0.9, 0.05, 0.05), Fixed(0.4, 0.5, 0.1), Fixed(0.3, 0.6, 0.1)]
    images = torch.zeros(2, 1, 8, 8)
    mean = Ensemble(list(members), vote=False)(images).exp()
    assert torch.allclose(mean[0], torch.tensor([1.6, 1.15, 0.25]) / 3)
    vote = Ensemble(list(members), vote=True)(images).exp()
    assert torch.allclose(vote[0], (torch.tensor([1.0, 2.0, 0.0]) + mean[0]) / 4)
    assert mean.argmax(1).tolist() == [0, 0] and vote.argmax(1).tolist() == [1, 1]
    tied = Ensemble(members[:2], vote=True)(images)
    assert tied.argmax(1).tolist() == [0, 0], "ties go by the mean"
