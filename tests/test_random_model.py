"""The predictions of a model with random weights."""

from collections.abc import Callable

import pytest
import torch

from runner.plan import Plan, identities
from runner.store import fingerprint
from tests.conftest import plan_of, stages_of

Quick = Callable[..., Plan]


def test_a_random_model_is_one_for_each_seed_and_not_the_start_of_the_original(quick: Quick) -> None:
    untrained = quick("training.epochs=0", "evaluation=quick")
    one = stages_of(untrained)
    logits = one.random_predictions().logits["test"]
    assert torch.equal(stages_of(untrained).random_predictions().logits["test"], logits)
    assert not torch.equal(one.predictions(one.pretrain()).logits["test"], logits)
    other = stages_of(quick("seed=1", "training.epochs=0", "evaluation=quick"))
    assert not torch.equal(other.random_predictions().logits["test"], logits)


def test_a_random_model_depends_on_no_training_and_no_method(quick: Quick) -> None:
    stages = stages_of(quick())
    stages.random_predictions()
    for other in ("training.epochs=2", "method=ssd", "scenario.classes=[5]"):
        again = stages_of(quick(other))
        again.random_predictions()
        assert again.used[-1].path == stages.used[-1].path


@pytest.mark.parametrize(
    ("evaluation", "splits"), [("standard", ["test", "train"]), ("test_only", ["test"])]
)
def test_a_random_model_predicts_the_splits_that_the_evaluation_asks_for(
    quick: Quick, evaluation: str, splits: list[str]
) -> None:
    stages = stages_of(quick(f"evaluation={evaluation}"))
    found = stages.random_predictions()
    assert sorted({part.split("_")[0] for part in found.logits}) == splits
    assert {made.identity["split"] for made in stages.used if made.stage == "random"} == set(splits)


def test_the_key_changes_on_purpose_only() -> None:
    """If it changes, raise the version of the stage, and then change it here."""
    assert fingerprint(identities.random(plan_of(), "test")) == "4e48f4df34567dad"
