"""Macro F1, top-5 accuracy, calibration error, weight distance and speed-up, worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from torch import Tensor

from metrics.ece import CalibrationError
from metrics.entropy import Entropy
from metrics.evidence import Costs, Evidence, Needs, Weights
from metrics.loss import Loss
from metrics.macro_f1 import MacroF1
from metrics.metric import Metric, Scores, matrices, numbers, scored
from metrics.predictions import Predictions
from metrics.speed_up import SpeedUp
from metrics.statistics.calibration import expected_calibration_error
from metrics.top5 import Top5
from metrics.weight_distance import WeightDistance

LABELS = torch.tensor([0, 0, 1, 2, 2, 2])
LOGITS = torch.tensor([[3.0, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 4], [1, 0, 0], [0, 0, 1]])


def score(metric: Metric, logits: Tensor, labels: Tensor, part: str = "test") -> Scores:
    predictions = Predictions({part: logits}, {part: labels}, logits.shape[1])
    return metric(Evidence({Needs.PREDICTIONS: predictions}))


def certain(*classes: int, k: int) -> Tensor:
    """Logits that predict these classes with probability 1."""
    return 1000 * torch.nn.functional.one_hot(torch.tensor(classes), k).float()


def test_six_rows_of_three_classes() -> None:
    """F1 of the classes: 1/2 (TP 1, FP 1, FN 1), 2/3 (1, 1, 0) and 4/5 (2, 0, 1)."""
    f1 = (1 / 2 + 2 / 3 + 4 / 5) / 3
    assert score(MacroF1(), LOGITS, LABELS) == pytest.approx({"test_macro_f1": f1})
    assert score(CalibrationError(15), LOGITS, LABELS) == pytest.approx(
        {"test_ece": 0.197421539}, rel=1e-6
    )


@pytest.mark.parametrize("right, of", [(0, 4), (1, 4), (3, 4), (4, 4)])
def test_the_macro_f1_of_one_class_follows_from_its_recall(right: int, of: int) -> None:
    """2r/(1 + r): no prediction of the class can be wrong. Other classes that are predicted have no
    rows, and do not count as F1 0, as in scikit-learn's default."""
    predicted = [2] * right + list(range(3, 3 + of - right))
    scores = score(MacroF1(), certain(*predicted, k=9), torch.full((of,), 2), "train_forget")
    r = right / of
    assert scores == pytest.approx({"train_forget_macro_f1": 2 * r / (1 + r)})
    if 0 < right < of:
        assert f1_score([2] * of, predicted, average="macro") < 2 * r / (1 + r)


def test_the_loss_of_a_certain_model_is_0_without_a_sign() -> None:
    own = Predictions({"test": certain(1, k=4)}, {"test": torch.tensor([1])}, 4)
    found = scored([Loss()], Evidence({Needs.PREDICTIONS: own}))
    assert str(found) == "{'test_loss': 0.0}"


def test_entropies_of_a_certain_a_uniform_and_a_known_answer() -> None:
    """0, ln 4, and ½ ln 2 + ¼ ln 4 + ¼ ln 4 = 3/2 ln 2 of (½, ¼, ¼, 0)."""
    rows = {
        0.0: [1000.0, 0, 0, 0],
        math.log(4): [7.0, 7, 7, 7],
        1.5 * math.log(2): [math.log(2), 0, 0, -1000],
    }
    for wanted, logits in rows.items():
        found = score(Entropy(), torch.tensor([logits]), torch.tensor([1]))
        assert found == pytest.approx({"test_entropy": wanted}, abs=1e-8)  # float32 logits


def test_two_classes_have_a_macro_f1_and_an_ece_but_no_top5() -> None:
    logits, labels = certain(0, 1, 1, k=2), torch.tensor([0, 1, 0])
    # F1 of the classes: 2/3 (TP 1, FN 1) and 2/3 (TP 1, FP 1)
    assert score(MacroF1(), logits, labels) == pytest.approx({"test_macro_f1": 2 / 3})
    assert score(CalibrationError(15), logits, labels) == pytest.approx({"test_ece": 1 / 3})
    assert score(Top5(), logits, labels) == {}


def test_top5_counts_the_logits_above_the_labels() -> None:
    logits = torch.arange(6.0).repeat(2, 1)  # four logits are above class 1's, and five above class 0's
    assert score(Top5(), logits, torch.tensor([1, 0])) == {"test_top5": 0.5}


@pytest.mark.parametrize("k, scores", [(5, {}), (6, {"test_top5": 1.0})])
def test_five_classes_have_no_top5(k: int, scores: Scores) -> None:
    assert score(Top5(), torch.eye(k), torch.arange(k)) == scores


def test_equal_logits_do_not_count_against_top5() -> None:
    assert score(Top5(), torch.zeros(3, 7), torch.tensor([0, 3, 6])) == {"test_top5": 1.0}


@pytest.mark.parametrize("k", [2, 3, 10, 100])
def test_flat_predictions_are_as_wrong_as_their_accuracy_is_from_1_over_k(k: int) -> None:
    """Every class 0 is predicted, with confidence 1/K: two of three rows are right."""
    scores = score(CalibrationError(15), torch.zeros(3, k), torch.tensor([0, 0, 1]))
    assert scores == pytest.approx({"test_ece": abs(1 / k - 2 / 3)})


def test_a_certain_model_is_calibrated_if_it_is_right() -> None:
    labels = torch.tensor([0, 1, 2, 3])
    assert score(CalibrationError(15), certain(0, 1, 2, 3, k=4), labels) == {"test_ece": 0.0}
    assert score(CalibrationError(15), certain(1, 2, 3, 0, k=4), labels) == {"test_ece": 1.0}


@pytest.mark.parametrize(("shares", "confidence"), [((1, 1, 1), 1 / 3), ((3, 1, 1), 3 / 5)])
def test_rounding_lifts_no_confidence_over_its_bin(shares: tuple[int, ...], confidence: float) -> None:
    """1/3 and 3/5 are upper bounds of two of 15 bins. A right row of that confidence shares its bin with
    a wrong one 0.01 below: together they are |½ − c + 0.005| off, and apart (1 − c + c − 0.01)/2."""
    weights = torch.tensor([shares], dtype=torch.float64)
    found = (weights / weights.sum()).log().log_softmax(1).amax(1).exp()
    both = torch.cat([found, found - 0.01])
    error = expected_calibration_error(both, torch.tensor([True, False]), bins=15)
    assert error == pytest.approx(abs(0.5 - confidence + 0.005))


def test_a_confidence_between_two_bins_belongs_to_the_lower_one() -> None:
    """Bins (0, ½] and (½, 1]. Rows of 0.5 (right) and 0.25 (wrong) share a bin: |1 − 0.75|/2."""
    confidence = torch.tensor([0.5, 0.25], dtype=torch.float64)
    found = expected_calibration_error(confidence, torch.tensor([True, False]), bins=2)
    assert found == pytest.approx(0.125)
    # in bins of their own they would be |1 − 0.5|/2 + |0 − 0.25|/2
    assert expected_calibration_error(confidence, torch.tensor([True, False]), bins=4) == 0.375


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=30))
def test_more_bins_hide_less(rows: list[tuple[float, bool]]) -> None:
    """One bin is |accuracy − mean confidence|. Bins that split others never lower the error."""
    confidence = torch.tensor([c for c, _ in rows], dtype=torch.float64)
    right = torch.tensor([r for _, r in rows])
    one, two, four = (expected_calibration_error(confidence, right, bins) for bins in (1, 2, 4))
    assert one == pytest.approx(abs(right.double().mean().item() - confidence.mean().item()))
    assert one <= two + 1e-12 <= four + 2e-12 and four <= 1


def test_a_part_without_rows_has_no_score() -> None:
    for metric in (MacroF1(), Top5()):
        (name,) = score(metric, torch.eye(6), torch.arange(6), "test_retain")
        assert name.startswith("test_retain_")


def model(*values: float, last: str = "head.bias") -> dict[str, Tensor]:
    """Return a model with parameters body.weight (2,), head.weight (1,) and a last one."""
    a, b, c, d = values
    return {
        "body.weight": torch.tensor([a, b]),
        "head.weight": torch.tensor([c]),
        last: torch.tensor([d]),
    }


def distances(weights: Weights) -> Scores:
    return WeightDistance()(Evidence({Needs.WEIGHTS: weights}))


def test_distances_are_norms_over_all_parameters_and_over_those_of_a_layer() -> None:
    own, original, reference = model(3, 4, 0, 2), model(3, 1, 0, 2), model(3, 4, 12, 2)
    scores = distances(Weights(own, original, reference))
    # body: ‖(0, 3)‖ of ‖(3, 1)‖; head: 0 of ‖(0, 2)‖
    body, head = matrices(scores)["layer_distance"]
    assert body == pytest.approx([3, 3 / math.sqrt(10)]) and head == [0, 0]
    assert numbers(scores) == pytest.approx(
        {
            "distance_to_original": 3,
            "relative_distance_to_original": 3 / math.sqrt(9 + 1 + 4),
            "distance_to_reference": 12,
            "relative_distance_to_reference": 12 / math.sqrt(9 + 16 + 144 + 4),
        }
    )


def test_a_model_is_at_no_distance_from_itself() -> None:
    own = model(1, 2, 3, 4)
    scores = distances(Weights(own, own, own))
    assert matrices(scores) == {"layer_distance": [[0, 0], [0, 0]]}
    assert list(numbers(scores).values()) == [0, 0, 0, 0]


def test_the_distance_of_independent_models_is_sqrt_2_of_their_norm() -> None:
    random = torch.Generator().manual_seed(0)
    own, other = ({"w": torch.randn(200_000, generator=random)} for _ in range(2))
    relative = distances(Weights(own, other, None))["relative_distance_to_original"]
    assert relative == pytest.approx(math.sqrt(2), rel=0.01)


def test_another_architecture_is_at_no_distance() -> None:
    own = model(1, 2, 3, 4)
    wider = {**own, "body.weight": torch.zeros(3)}
    renamed = model(1, 2, 3, 4, last="head.gain")
    assert distances(Weights(own, wider, renamed)) == {}
    assert set(distances(Weights(own, renamed, own))) == {
        "distance_to_reference",
        "relative_distance_to_reference",
    }


def test_no_reference_and_no_norm_leave_scores_out() -> None:
    own, empty = model(1, 2, 3, 4), model(0, 0, 0, 0)
    assert not [name for name in distances(Weights(own, own, None)) if "reference" in name]
    assert distances(Weights(own, empty, None)) == {"distance_to_original": math.sqrt(30)}


def speed_up(own: tuple[float, float], reference: tuple[float, float] | None) -> Scores:
    """Return the scores of two models, each with its seconds and gradient examples."""
    names = ("seconds", "gradient_examples")
    theirs = None if reference is None else dict(zip(names, reference, strict=True))
    return SpeedUp()(Evidence({Needs.COSTS: Costs(dict(zip(names, own, strict=True)), theirs)}))


def test_the_speed_up_is_retrainings_cost_over_the_models() -> None:
    assert speed_up((2.0, 50), (8.0, 1000)) == {"speed_up": 4.0, "speed_up_examples": 20.0}
    assert speed_up((8.0, 1000), (8.0, 1000)) == {"speed_up": 1.0, "speed_up_examples": 1.0}


def test_a_model_that_costs_nothing_has_no_speed_up() -> None:
    assert speed_up((2.0, 0), (8.0, 1000)) == {"speed_up": 4.0}
    assert speed_up((0.0, 0), (8.0, 1000)) == {} == speed_up((2.0, 50), None)
