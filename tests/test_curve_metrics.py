"""Numbers read off training curves: recovery, relearning, and what comes back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.evidence import Curves, Evidence, Needs, Point
from metrics.metric import numbers
from metrics.recovery import Recovery
from metrics.relearn_attack import RelearnAttack
from metrics.relearning import Relearning

LOOK, PER_EPOCH = 5, 20


def curve(*accuracies: float) -> list[Point]:
    """Return looks every 5 batches, of half a second each, with the same accuracy on both probes."""
    return [Point(LOOK * i, LOOK * i / 2, value, value) for i, value in enumerate(accuracies)]


def curves(own: list[Point], reference: list[Point] | None = None, start: float = 0.8) -> Curves:
    """Return curves of a model, whose original has accuracy `start` on both probes."""
    return Curves(own, reference, Point(0, 0.0, start, start), PER_EPOCH)


def recovery(found: Curves, tolerance: float = 0.01) -> dict[str, float]:
    return numbers(Recovery(tolerance)(Evidence({Needs.RECOVER: found})))


def relearning(found: Curves, share: float = 0.05) -> dict[str, float]:
    return numbers(Relearning(share)(Evidence({Needs.RELEARN: found})))


def attack(found: Curves) -> dict[str, float]:
    return numbers(RelearnAttack()(Evidence({Needs.RECOVER: found})))


def test_recovery_ends_at_the_first_look_within_the_tolerance() -> None:
    """0.795 is within 0.01 of 0.8, and 0.785 is not. The curve may fall again afterwards."""
    found = curves(curve(0.5, 0.7, 0.785, 0.795, 0.6, 0.9))
    assert recovery(found) == {
        "recovery_batches": 15,
        "recovery_epochs": 15 / PER_EPOCH,
        "recovery_seconds": 7.5,
    }
    assert recovery(found, tolerance=0.02)["recovery_batches"] == 10
    assert recovery(found, tolerance=0)["recovery_batches"] == 25


@pytest.mark.parametrize(
    ("original", "tolerance", "level"), [(0.07, 0.01, 0.06), (0.2, 0.05, 0.15), (0.4, 0.05, 0.35)]
)
def test_the_level_itself_is_recovery(original: float, tolerance: float, level: float) -> None:
    """As floating-point numbers, original − τ is above the level here."""
    assert original - tolerance > level
    found = curves(curve(0.0, level), start=original)
    assert recovery(found, tolerance)["recovery_batches"] == 5


def test_the_level_itself_is_relearning() -> None:
    """95 % of 20 in 53 rows are 19 in 53."""
    assert (1 - 0.05) * (20 / 53) > 19 / 53
    found = relearning(curves(curve(0.0, 19 / 53), start=20 / 53))
    assert found["relearn_batches"] == 5


def test_a_model_that_lost_nothing_recovers_at_once() -> None:
    assert set(recovery(curves(curve(0.8, 0.9))).values()) == {0}


def test_an_exhausted_budget_is_censored_and_has_no_number() -> None:
    assert recovery(curves(curve(0.1, 0.2, 0.3))) == {
        "recovery_batches_censored": 1,
        "recovery_epochs_censored": 1,
        "recovery_seconds_censored": 1,
    }
    assert relearning(curves(curve(0.1, 0.2), curve(0.1, 0.9))) == {
        "relearn_batches_censored": 1,
        "relearn_epochs_censored": 1,
        "anamnesis_index_censored": 1,
    }


def test_recovery_watches_the_retained_rows_and_relearning_the_forgotten_ones() -> None:
    points = [Point(0, 0, forget=0.1, retain=0.9), Point(8, 1, forget=0.9, retain=0.1)]
    assert recovery(curves(points))["recovery_batches"] == 0
    assert relearning(curves(points))["relearn_batches"] == 8


def test_relearning_ends_at_a_share_of_the_originals_accuracy() -> None:
    """(1 − 0.05)·0.8 = 0.76."""
    found = curves(curve(0.0, 0.75, 0.77, 0.8))
    assert relearning(found) == {"relearn_batches": 10, "relearn_epochs": 0.5}
    assert relearning(found, share=0.1)["relearn_batches"] == 5
    assert relearning(found, share=0)["relearn_batches"] == 15


@pytest.mark.parametrize(
    "own, index",
    [
        (curve(0.0, 0.1, 0.8), 1.0),  # as the retrained model, after 10 batches
        (curve(0.0, 0.8), 0.5),
        (curve(0.8), 0.1),  # at once counts as one batch
        (curve(0.0, 0.1, 0.2, 0.3, 0.8), 2.0),
    ],
)
def test_the_anamnesis_index_compares_with_the_retrained_model(own: list[Point], index: float) -> None:
    found = relearning(curves(own, reference=curve(0.0, 0.0, 0.9)))
    assert found["anamnesis_index"] == pytest.approx(index)


def test_a_retrained_model_has_index_1() -> None:
    for retrained in (curve(0.0, 0.1, 0.8), curve(0.9)):
        assert relearning(curves(retrained, retrained))["anamnesis_index"] == 1


def test_the_anamnesis_index_needs_both_models_to_get_there() -> None:
    for own, reference in ((0.8, 0.1), (0.1, 0.8), (0.1, 0.1)):
        found = relearning(curves(curve(0.0, own), curve(0.0, reference)))
        assert "anamnesis_index" not in found and found["anamnesis_index_censored"] == 1
    assert not any("anamnesis" in name for name in relearning(curves(curve(0.0, 0.8))))


def test_the_attack_is_as_strong_as_its_best_look() -> None:
    assert attack(curves(curve(0.1, 0.25, 0.75, 0.5))) == {
        "relearn_attack_gain": 0.65,
        "relearn_attack_accuracy": 0.75,
    }


def test_nothing_comes_back_to_a_model_that_only_falls() -> None:
    assert attack(curves(curve(0.5, 0.25))) == {
        "relearn_attack_gain": 0,
        "relearn_attack_accuracy": 0.5,
    }


def test_without_a_forget_probe_only_the_retained_rows_have_scores() -> None:
    points = [Point(0, 0.0, math.nan, 0.1), Point(5, 1.0, math.nan, 0.9)]
    start = Point(0, 0.0, math.nan, 0.8)
    found = Curves(points, points, start, PER_EPOCH)
    assert attack(found) == {} == relearning(found)
    assert recovery(found)["recovery_batches"] == 5


accuracies = st.lists(st.floats(0, 1), min_size=1, max_size=10)


@given(accuracies, st.floats(0, 1), st.floats(0, 1))
def test_a_wider_tolerance_never_takes_longer(values: list[float], one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    found = curves(curve(*values))
    if "recovery_batches" in recovery(found, narrow):
        assert recovery(found, wide)["recovery_batches"] <= recovery(found, narrow)["recovery_batches"]


@given(accuracies)
def test_the_gain_is_never_negative_and_ends_at_the_largest_accuracy(values: list[float]) -> None:
    scores = attack(curves(curve(*values)))
    assert scores["relearn_attack_gain"] >= 0
    assert scores["relearn_attack_accuracy"] == max(values)
