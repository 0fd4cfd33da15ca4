"""Methods that subtract a record: the strength that they are given, and the one that they find."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from methods.families.subtraction import smallest
from runner.pipeline import run
from runner.plan import Plan
from tests.conftest import stages_of
from tests.recording import weights

Quick = Callable[..., Plan]

LEARNED = ["training.epochs=30", "training.lr=0.05"]

SUBTRACTIONS = [
    ("amnesiac", "batch_updates"),
    ("amnesiac_partial", "layerwise"),
    ("per_sample_amnesiac", "per_sample"),
]


@given(threshold=st.floats(0.001, 1000))
def test_the_search_finds_the_smallest_strength_that_is_enough(threshold: float) -> None:
    tried: list[float] = []

    def reached(strength: float) -> bool:
        tried.append(strength)
        return strength >= threshold

    found, evaluations = smallest(reached)
    assert found >= threshold and evaluations == len(tried) <= 2 + 10 + 5
    assert found - threshold <= threshold / 32


def test_a_strength_near_zero_is_found_to_a_thousandth_over_thirty_two() -> None:
    found, evaluations = smallest(lambda strength: strength > 1e-9)
    assert 0 < found <= 2**-10 / 32 and evaluations == 2 + 10 + 5


def test_nothing_is_subtracted_where_nothing_has_to_be() -> None:
    assert smallest(lambda strength: True) == (0.0, 1)


def test_a_target_that_no_strength_reaches_is_told() -> None:
    with pytest.raises(UserError, match="no strength up to 1024 reaches the target"):
        smallest(lambda strength: False)


@pytest.mark.parametrize(("method", "recorder"), SUBTRACTIONS)
def test_the_displacement_is_the_strength_times_that_of_one(
    quick: Quick, method: str, recorder: str
) -> None:
    def displacement(strength: float) -> torch.Tensor:
        chosen = [f"method={method}", f"recorder=[{recorder}]", f"method.strength={strength}"]
        stages = stages_of(quick(*chosen))
        original = stages.pretrain()
        return weights(stages, stages.unlearn(original)) - weights(stages, original)

    whole = displacement(1)
    assert whole.norm() > 0
    assert torch.allclose(displacement(0.25), 0.25 * whole, atol=1e-6)


@pytest.mark.parametrize(("method", "recorder"), SUBTRACTIONS)
def test_auto_says_how_often_it_looked_and_reaches_its_target(
    quick: Quick, method: str, recorder: str
) -> None:
    chosen = [f"recorder=[{recorder}]", f"method={method}", "method.strength=auto", "method.target=0.2"]
    result = run(quick(*LEARNED, *chosen))
    assert result is not None
    scores, costs = result.scores, result.costs["unlearned"]
    assert scores["original"]["train_forget_accuracy"] > 0.2
    assert scores["unlearned"]["train_forget_accuracy"] <= 0.2
    assert costs["forward_examples"] == 20 * costs["evaluations"] > 0 and costs["strength"] > 0
