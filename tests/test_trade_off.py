"""Trade-offs from accuracies and shares that are set by hand, and the attacks that they use."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from metrics.evidence import Evidence, Needs
from metrics.metric import Metric, numbers
from metrics.predictions import Predictions
from metrics.statistics.membership import entropy_share, loss_share, svc_share
from metrics.trade_off import TradeOff
from metrics.trade_off_official import TradeOffOfficial


def predictions(**margins: list[float]) -> Predictions:
    """Return predictions of two classes by part. Every label is 0, and a margin is z_0 − z_1.

    A row is right if its margin is at least 0. The larger the margin, the smaller the loss.
    """
    logits = {part: torch.tensor([[margin, 0.0] for margin in rows]) for part, rows in margins.items()}
    labels = {part: torch.zeros(len(z), dtype=torch.int64) for part, z in logits.items()}
    return Predictions(logits, labels, 2)


def of_losses(forget: list[float], members: list[float], others: list[float]) -> Predictions:
    """Return predictions whose rows have these losses: the margin is ln p − ln(1 − p) of p = e^−loss."""
    losses = {"train_forget": forget, "train_retain": members, "test_retain": others}
    return predictions(
        **{
            part: [-loss - math.log(-math.expm1(-loss)) for loss in rows]
            for part, rows in losses.items()
        }
    )


def trade_off(metric: Metric, own: Predictions, reference: Predictions) -> dict[str, float]:
    return numbers(metric(Evidence({Needs.PREDICTIONS: own, Needs.REFERENCE: reference})))


# Margins of a row that the attack calls a member; of one that it does not; and of a wrong one, which it
# does not either.
MEMBER, OTHER, WRONG = 6.0, 1.0, -3.0

OWN = predictions(
    train_forget=[MEMBER, MEMBER, MEMBER, OTHER],  # accuracy 1, share of members 3/4
    train_retain=[MEMBER] * 10,  # accuracy 1
    test_retain=[OTHER] * 10,
    test=[OTHER, OTHER, OTHER, WRONG],  # accuracy 3/4
)
REFERENCE = predictions(
    train_forget=[MEMBER, MEMBER, WRONG, WRONG],  # accuracy 1/2, share of members 1/2
    train_retain=[MEMBER] * 9 + [-0.1],  # accuracy 9/10
    test_retain=[OTHER] * 10,
    test=[OTHER, OTHER, WRONG, WRONG],  # accuracy 1/2
)


def test_gaps_add_up_and_multiply() -> None:
    assert (loss_share(OWN), loss_share(REFERENCE)) == (0.75, 0.5)
    assert trade_off(TradeOff(), OWN, REFERENCE) == pytest.approx(
        {
            "average_gap": (0.5 + 0.1 + 0.25 + 0.25) / 4,
            "delta_accuracy": 0.5 + 0.1 + 0.25,
            "tow": 0.5 * 0.9 * 0.75,
            "tow_mia": 0.75 * 0.9 * 0.75,  # the gap of the shares for that of the forget accuracies
        }
    )


def test_published_gaps_are_of_the_retained_test_rows_and_of_the_support_vector_machine() -> None:
    own, reference = svc_share(OWN), svc_share(REFERENCE)
    assert own == 0.25 and reference is not None
    efficacy = abs(own - reference)
    assert trade_off(TradeOffOfficial(), OWN, REFERENCE) == pytest.approx(
        {
            "average_gap_official": (0.5 + 0.1 + 0 + efficacy) / 4,
            "tow_mia_official": (1 - efficacy) * 0.9 * 1,
        }
    )


def test_a_model_has_no_gap_to_itself() -> None:
    same = {"average_gap": 0, "delta_accuracy": 0, "tow": 1, "tow_mia": 1}
    assert trade_off(TradeOff(), OWN, OWN) == same
    official = {"average_gap_official": 0, "tow_mia_official": 1}
    assert trade_off(TradeOffOfficial(), OWN, OWN) == official


def test_the_opposite_model_is_at_the_largest_gap() -> None:
    right, wrong = (
        predictions(train_forget=[m], train_retain=[m, 2 * m], test=[m], test_retain=[-m])
        for m in (5.0, -5.0)
    )
    scores = trade_off(TradeOff(), right, wrong)
    assert scores["delta_accuracy"] == 3 and scores["tow"] == 0


def test_a_missing_part_leaves_out_what_needs_it() -> None:
    tests = {"test_retain": [OTHER], "test": [OTHER]}
    trains = {"train_forget": [OTHER], "train_retain": [MEMBER], "test": [OTHER]}
    untrained, every_test_row_forgotten = predictions(**tests), predictions(**trains)
    assert trade_off(TradeOff(), untrained, untrained) == {}
    assert trade_off(TradeOffOfficial(), untrained, untrained) == {}
    scores = trade_off(TradeOff(), every_test_row_forgotten, every_test_row_forgotten)
    assert scores == {"delta_accuracy": 0, "tow": 1}
    assert trade_off(TradeOffOfficial(), every_test_row_forgotten, every_test_row_forgotten) == {}


margins = st.lists(st.sampled_from([MEMBER, OTHER, WRONG]), min_size=3, max_size=3)


@given(st.lists(margins, min_size=6, max_size=6))
def test_tow_is_1_only_if_no_accuracy_differs(rows: list[list[float]]) -> None:
    own, reference = (
        predictions(**dict(zip(("train_forget", "train_retain", "test"), three, strict=True)))
        for three in (rows[:3], rows[3:])
    )
    scores = trade_off(TradeOff(), own, reference)
    assert 0 <= scores["tow"] <= 1 and 0 <= scores["delta_accuracy"] <= 3
    assert (scores["tow"] == 1) == (scores["delta_accuracy"] == 0)
    # Bernoulli's inequality: Π (1 − Δ) ≥ 1 − Σ Δ
    assert scores["tow"] >= 1 - scores["delta_accuracy"] - 1e-12


@pytest.mark.parametrize("members, others", [(30, 30), (30, 3), (3, 30)])
def test_the_attack_on_two_losses_splits_them_in_the_middle(members: int, others: int) -> None:
    """Both sides weigh the same, so their numbers of rows do not move the threshold: (0.2 + 1)/2."""
    found = loss_share(of_losses([0.59, 0.61, 0.61, 0.61], [0.2] * members, [1.0] * others))
    assert found == 0.25


# Losses of members and of others that overlap, and losses that are dense enough to show a threshold.
MEMBERS, OTHERS = [0.1, 0.2, 0.3, 0.4], [0.2, 0.5, 8.0]
DENSE = torch.linspace(0.01, 1.5, 1000).tolist()


def test_the_attack_is_the_regularised_logistic_regression_on_z_scores() -> None:
    """It minimises ½w² + C Σ c_i ln(1 + e^{−y_i(w z_i + b)}) with C = 1 and c_i = n/(2 n_side)."""
    losses = np.array(MEMBERS + OTHERS)
    y = np.array([1] * 4 + [-1] * 3)
    weight = np.where(y == 1, 7 / 8, 7 / 6)

    def objective(wb: NDArray[np.float64], z: NDArray[np.float64]) -> float:
        return float(wb[0] ** 2 / 2 + weight @ np.log1p(np.exp(-y * (wb[0] * z + wb[1]))))

    z = (losses - losses.mean()) / losses.std()
    w, b = minimize(objective, [0, 0], args=(z,), tol=1e-12).x
    threshold = losses.mean() - losses.std() * b / w
    below = np.mean(np.array(DENSE) < threshold)
    assert loss_share(of_losses(DENSE, MEMBERS, OTHERS)) == pytest.approx(below, abs=0.0015)


def test_the_support_vector_machine_solves_its_dual() -> None:
    """It maximises Σ α − ½ Σ α_i α_j y_i y_j K_ij with K_ij = e^{−(p_i − p_j)²}, where 0 ≤ α ≤ C = 3 and
    Σ α y = 0. Its score is Σ α_i y_i K(p_i, p) + b, and ±1 on the rows with 0 < α < C."""
    members, others = [0.1, 0.3, 0.5], [0.05, 2.0, 6.0]
    p, y = np.exp(-np.array(members + others)), np.array([1.0] * 3 + [-1.0] * 3)
    kernel = np.exp(-((p[:, None] - p) ** 2))
    alpha = minimize(
        lambda a: (a * y) @ kernel @ (a * y) / 2 - a.sum(),
        np.ones(6),
        bounds=[(0, 3)] * 6,
        constraints={"type": "eq", "fun": lambda a: a @ y},
        options={"ftol": 1e-14, "maxiter": 1000},
    ).x
    free = (alpha > 0.01) & (alpha < 2.99)
    b = np.mean((y - kernel @ (alpha * y))[free])
    score = np.exp(-((np.exp(-np.array(DENSE))[:, None] - p) ** 2)) @ (alpha * y) + b
    found = svc_share(of_losses(DENSE, members, others))
    assert found == pytest.approx(np.mean(score < 0), abs=0.003)


def test_the_attack_on_equal_populations_calls_half_of_the_rows_members() -> None:
    """There is nothing to learn: the threshold is near the mean loss, half of symmetric losses below."""
    random = torch.Generator().manual_seed(0)
    forget, members, others = (0.1 + torch.rand(3, 3000, generator=random)).tolist()
    assert loss_share(of_losses(forget, members, others)) == pytest.approx(0.5, abs=0.05)


def test_the_attack_is_undefined_without_rows_or_differences_or_numbers() -> None:
    assert loss_share(predictions(train_forget=[1.0], train_retain=[1.0])) is None
    assert loss_share(of_losses([0.5], [0.2, 0.2], [0.2])) is None
    diverged = predictions(train_forget=[math.nan], train_retain=[1.0], test_retain=[0.0])
    assert loss_share(diverged) is None and svc_share(diverged) is None


def test_losses_that_differ_by_rounding_alone_are_equal() -> None:
    """Each row has the same logits, those of the wrong classes in another order."""
    rows = torch.tensor([[0.1, *others] for others in permutations([0.7, 2.3, 1.9, 0.31])])
    parts = dict.fromkeys(("train_forget", "train_retain", "test_retain"), rows)
    labels = dict.fromkeys(parts, torch.zeros(24, dtype=torch.int64))
    given = Predictions(parts, labels, 5)
    losses = given.own_logprobs("train_retain")
    assert 0 < losses.max() - losses.min() < 1e-14
    assert loss_share(given) is None and entropy_share(given) is None


def test_the_support_vector_machine_is_fitted_on_the_first_retained_rows() -> None:
    """As many as there are test rows. The later ones would confuse it: their loss is the test rows'."""
    members, others = [0.1, 0.12, 0.14], [1.0, 1.1, 1.2]
    assert svc_share(of_losses([0.11, 0.13, 1.05, 1.15], members, others)) == 0.5
    assert svc_share(of_losses([0.11, 0.13, 1.05, 1.15], members + 9 * [1.1], others)) == 0.5
    assert svc_share(of_losses([1.05], members, others)) == 1.0


def test_the_support_vector_machine_needs_as_many_retained_training_rows_as_test_rows() -> None:
    assert svc_share(of_losses([0.5], [0.1, 0.2], [1.0, 1.1])) is not None
    assert svc_share(of_losses([0.5], [0.1], [1.0, 1.1])) is None
    assert svc_share(predictions(train_retain=[6.0], test_retain=[1.0])) is None
