"""What a run says of a model that learned, forgot or kept nothing."""

from collections.abc import Callable

import pytest
import torch

from metrics.predictions import Predictions
from runner.plan import Plan
from runner.remarks import at_chance, remarks

Quick = Callable[..., Plan]


def answers(part: str, right: int, of: int = 100) -> Predictions:
    """Predictions of `of` rows of four equal classes, of which `right` are right."""
    labels = torch.arange(of) % 4
    given = torch.where(torch.arange(of) < right, labels, (labels + 1) % 4)
    logits = torch.nn.functional.one_hot(given, 4).float()
    return Predictions({part: logits}, {part: labels}, 4)


GOOD, CHANCE = answers("test", 90), answers("test", 30)


@pytest.mark.parametrize("part", ["test", "test_retain"])
def test_a_model_within_two_standard_errors_of_a_constant_answer_is_at_chance(part: str) -> None:
    """p = 1/4 and n = 100: 0.25 + 2 · 0.0433 = 0.3366."""
    assert at_chance(answers(part, 33)) and not at_chance(answers(part, 34))


def said_of(plan: Plan, original: Predictions, unlearned: Predictions) -> tuple[dict[str, float], str]:
    said: list[str] = []
    return remarks(plan, original, unlearned, False, said.append), " | ".join(said)


def test_a_method_that_works_and_moves_nothing_is_named(quick: Quick) -> None:
    found, text = said_of(quick("method=ssd"), GOOD, GOOD)
    assert found == {"moved_no_prediction": 1} and "predicted class of no row" in text
    found, text = said_of(quick("method=ssd", "evaluation=test_only"), GOOD, GOOD)
    assert found == {"moved_no_prediction": 1} and "predicted class of no test row" in text
    assert said_of(quick("method=ssd"), GOOD, answers("test", 89)) == ({}, "")


def test_the_original_is_not_expected_to_move_anything(quick: Quick) -> None:
    assert said_of(quick("method=original"), GOOD, GOOD) == ({}, "")


@pytest.mark.parametrize(
    ("method", "cure"),
    [("finetune", "lower method.lr"), ("sisa", "choose other options"), ("retrain", "of the training")],
)
def test_a_model_at_chance_is_named_with_what_the_method_has(
    quick: Quick, method: str, cure: str
) -> None:
    found, text = said_of(quick(f"method={method}"), GOOD, CHANCE)
    assert found == {"at_chance": 1} and cure in text
    assert ("method.lr" in text) == (method == "finetune")


def test_an_original_at_chance_is_not_held_against_the_method(quick: Quick) -> None:
    assert said_of(quick(), CHANCE, answers("test", 29)) == ({}, "")
