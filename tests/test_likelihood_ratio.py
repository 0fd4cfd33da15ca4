"""The likelihood-ratio attack: a case by hand, and normal margins whose AUC is known."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metrics.evidence import Evidence, Needs, Shadows
from metrics.lira import Lira
from metrics.metric import Metric, Scores
from metrics.predictions import Predictions
from metrics.statistics.likelihood_ratio import (
    attack_rates,
    attack_scores,
    aucs,
    likelihood_ratios,
    mean_forgotten_scores,
)
from metrics.ulira import ULira

Numbers = NDArray[np.float64]
Bools = NDArray[np.bool_]

# 3 pairs of shadows and 4 rows.
MARGINS = np.array(
    [
        [2.0, 1.0, 0.0, 3.0],
        [1.0, 0.0, 1.0, 4.0],
        [2.5, 0.0, 1.0, 3.0],
        [0.5, 1.5, 0.0, 4.5],
        [2.0, 0.5, 0.5, 4.0],
        [1.0, 1.0, 1.5, 3.5],
    ]
)
FORGOT = np.array(
    [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]], bool
)
SCORES = [
    [6.0, 2.0, -6.0, -6.0],
    [-6.0, -6.0, 2.0, 2.0],
    [8.549306144, -15.117360522, 2.549306144, -15.117360522],
    [-34.117360522, 4.882639478, -24.117360522, 4.882639478],
    [24.117360522, 0.450693856, 2.117360522, 15.117360522],
    [-7.882639478, 15.117360522, 34.117360522, 0.450693856],
]


def halves(models: int, rows: int, random: np.random.Generator) -> Bools:
    """Return which rows each model forgot, in pairs with complementary halves."""
    first = random.random((models // 2, rows)) < 0.5
    return np.stack([first, ~first], 1).reshape(models, rows)


def drawn(models: int, shift: float, spread: float, seed: int, rows: int = 100) -> tuple[Numbers, Bools]:
    """Return normal margins, OUT with deviation 1, IN with deviation `spread` and moved by `shift`.

    The mean of OUT differs by row, with deviation 3.
    """
    random = np.random.default_rng([seed, models])
    forgot = halves(models, rows, random)
    noise = random.normal(size=(models, rows))
    means = 3 * random.normal(size=rows)
    return means + np.where(forgot, shift + spread * noise, noise), forgot


def mean_auc(models: int, shift: float, spread: float = 1.0) -> tuple[float, float]:
    """Return the mean AUC of 20 independent sets of models, and its standard error."""
    means = []
    for seed in range(20):
        margins, forgot = drawn(models, shift, spread, seed)
        means.append(np.mean(aucs(likelihood_ratios(margins, margins, forgot), forgot)))
    return float(np.mean(means)), float(np.std(means, ddof=1)) / math.sqrt(20)


# Cases by hand


def test_scores_of_six_models_have_known_values() -> None:
    found = likelihood_ratios(MARGINS, MARGINS, FORGOT)
    assert found == pytest.approx(np.array(SCORES))
    assert aucs(found, FORGOT) == [1, 1, 1, 1, 1, 1]


def test_the_first_score_by_hand() -> None:
    # Row 0 of target 0, from models 2 to 5: IN 2.5 and 2, OUT ½ and 1. The mean squares of all rows
    # around their means, over 4 (k − 1) = 4 degrees of freedom:
    inside = [[2.5, 2.0], [1.5, 1.0], [1.0, 1.5], [4.5, 4.0]]
    outside = [[0.5, 1.0], [0.0, 0.5], [0.0, 0.5], [3.0, 3.5]]
    var_in, var_out = (sum((a - b) ** 2 / 2 for a, b in rows) / 4 for rows in (inside, outside))
    ln_in = math.log(NormalDist(2.25, math.sqrt(var_in)).pdf(2.0))
    ln_out = math.log(NormalDist(0.75, math.sqrt(var_out)).pdf(2.0))
    assert ln_in - ln_out == pytest.approx(SCORES[0][0])


def test_the_rates_are_the_largest_at_their_false_alarms() -> None:
    # 100 rows never seen have scores 0 to 99, so that 1 % is one of them: a rule above 98
    forgotten = [98.0, 98.5, 99.0, 100.0, 1.0]
    scores = np.array([*range(100), *forgotten])[None]
    forgot = np.array([[False] * 100 + [True] * 5])
    # s ≥ 98.5 finds three, and s ≥ 98 would take a second row for a forgotten one
    assert attack_rates(scores, forgot) == {"tpr_1": 0.6}
    # the best of 1,000 rows never seen: one false alarm is 0.1 %, and 10 are 1 %
    many = np.array([*np.arange(1000) / 10, *forgotten])[None]
    forgot = np.array([[False] * 1000 + [True] * 5])
    assert attack_rates(many, forgot) == {"tpr_1": 0.4, "tpr_01": 0.2}


def test_a_rate_that_allows_less_than_one_false_alarm_is_undefined() -> None:
    scores = np.arange(198.0).reshape(2, 99)
    forgot = np.array([[True] * 99, [False] * 99])
    assert attack_rates(scores, forgot) == {}


def test_the_targets_pool_their_scores_for_a_rate() -> None:
    scores = np.arange(400.0).reshape(2, 200)
    forgot = np.tile([True, False], (2, 100))
    # 200 rows never seen, two of which may be taken for forgotten: 399 and 397
    assert attack_rates(scores, forgot)["tpr_1"] == pytest.approx(2 / 200)


# Sides


def test_targets_that_forgot_nothing_or_everything_have_no_auc() -> None:
    forgot = np.array([[True], [False]] * 3)
    scores = likelihood_ratios([[2.0], [0.0], [3.0], [1.0], [2.5], [0.5]], MARGINS[:, :1], forgot)
    assert aucs(scores, forgot) == []
    assert attack_scores(scores, forgot) == {}


def test_all_rows_of_one_kind_have_no_rate() -> None:
    assert attack_rates(np.ones((2, 200)), np.ones((2, 200), bool)) == {}


def test_models_that_are_all_alike_tell_nothing() -> None:
    # the floor of the variances keeps the ratio at ln 1
    found = likelihood_ratios(np.ones((6, 4)), np.ones((6, 4)), FORGOT)
    assert found.tolist() == np.zeros((6, 4)).tolist()
    assert aucs(found, FORGOT) == [0.5] * 6


def test_the_pair_of_the_target_is_left_out() -> None:
    """Its shadows may hold anything."""
    changed = MARGINS.copy()
    changed[2:4] = 1000.0
    found = likelihood_ratios(MARGINS, changed, FORGOT)
    assert found[2:4] == pytest.approx(np.array(SCORES)[2:4])
    assert (found[:2] != np.array(SCORES)[:2]).any()


def test_a_shift_and_a_scale_of_all_margins_change_nothing() -> None:
    margins, forgot = drawn(8, shift=1.0, spread=0.7, seed=0)
    found = likelihood_ratios(margins, margins, forgot)
    moved = 5 + 3 * margins
    assert likelihood_ratios(moved, moved, forgot) == pytest.approx(found)


# Normal margins


@pytest.mark.parametrize("models", [6, 8, 16])
def test_equal_margins_leave_nothing_to_find(models: int) -> None:
    mean, error = mean_auc(models, shift=0.0)
    assert abs(mean - 0.5) <= 3 * error


@pytest.mark.parametrize(("shift", "auc"), [(1.0, 0.73), (2.0, 0.91)])
def test_a_shift_of_the_margins_is_found_by_16_models(shift: float, auc: float) -> None:
    mean, error = mean_auc(16, shift)
    assert abs(mean - auc) <= 0.005 + 3 * error
    # no attack finds more than the one that knows the means: Φ(δ / √2)
    assert mean - 3 * error < NormalDist().cdf(shift / math.sqrt(2))


def test_many_models_approach_the_attack_that_knows_the_means() -> None:
    mean, error = mean_auc(128, shift=1.0)
    assert abs(mean - NormalDist().cdf(1 / math.sqrt(2))) <= 0.005 + 3 * error


def test_a_smaller_spread_alone_is_found_by_16_models() -> None:
    mean, error = mean_auc(16, shift=0.0, spread=0.5)
    assert abs(mean - 0.68) <= 0.005 + 3 * error


# The metrics


def predictions(margins: Numbers, labels: list[int]) -> Predictions:
    """Return predictions of the forgotten rows with these margins, in two classes."""
    own = torch.tensor(margins).float()
    label = torch.tensor(labels)
    logits = torch.zeros(len(labels), 2).scatter(1, label[:, None], own[:, None])
    return Predictions({"train_forget": logits}, {"train_forget": label}, classes=2)


def scores(
    metric: Metric, originals: Numbers, unlearned: Numbers, forgot: Bools, labels: list[int]
) -> Scores:
    """Return the scores of shadows whose forgotten rows have the numbers 100, 101, …"""
    shadows = Shadows(
        [predictions(phi, labels) for phi in originals],
        [predictions(phi, labels) for phi in unlearned],
        torch.tensor(forgot),
        torch.arange(100, 100 + len(labels)),
    )
    return metric(Evidence({Needs.SHADOWS: shadows}))


def test_ulira_attacks_the_unlearned_shadows_and_names_the_leaking_rows() -> None:
    found = scores(ULira(), np.zeros((6, 4)), MARGINS, FORGOT, [0, 1, 1, 0])
    assert found["ulira_auc"] == [1] * 6
    # the means of SCORES over the targets that forgot the row
    means = [(6 + 8.549306144 + 24.117360522) / 3, 7.333333333, 12.888888889, 7.333333333]
    assert mean_forgotten_scores(SCORES, FORGOT) == pytest.approx(means)
    rows = np.array(found["leaking_rows"])
    assert rows[:, :2].tolist() == [[100, 0], [102, 1], [101, 1], [103, 0]]
    assert rows[:, 2] == pytest.approx(sorted(means, reverse=True))
    each = np.array(found["ulira_rows"])
    assert each[:, 0].tolist() == [100, 101, 102, 103] and each[:, 1] == pytest.approx(means)


def test_ulira_names_twenty_rows() -> None:
    margins, forgot = drawn(8, shift=0.0, spread=1.0, seed=1)
    margins[:, 40:60] += 10 * forgot[:, 40:60]  # these leak
    found = scores(ULira(), margins, margins, forgot, [0] * 100)
    assert sorted(row[0] for row in found["leaking_rows"]) == list(range(140, 160))  # type: ignore[union-attr, index]
    # 400 rows never seen are enough for 1 % false alarms, and not for 0.1 %
    assert set(found) == {"ulira_auc", "ulira_tpr_1", "ulira_rows", "leaking_rows"}


def test_lira_fits_the_originals_and_attacks_the_unlearned_models() -> None:
    labels = [0] * 100
    known, forgot = drawn(16, shift=3.0, spread=1.0, seed=0)
    forgotten, _ = drawn(16, shift=0.0, spread=1.0, seed=0)
    # a method that changes nothing leaves all that the attack finds in the originals
    unchanged = np.array(scores(Lira(), known, known, forgot, labels)["lira_auc"])
    assert unchanged == pytest.approx(scores(ULira(), known, known, forgot, labels)["ulira_auc"])
    assert unchanged.mean() > 0.95
    # one that forgets all leaves nothing, though the originals remember
    right = np.array(scores(Lira(), known, forgotten, forgot, labels)["lira_auc"])
    assert abs(right.mean() - 0.5) <= 3 * right.std(ddof=1) / math.sqrt(16)


@pytest.mark.parametrize("metric", [ULira(), Lira()])
def test_a_shadow_that_diverged_leaves_no_score(metric: Metric) -> None:
    broken = MARGINS.copy()
    broken[0, 0] = np.nan
    assert scores(metric, broken, broken, FORGOT, [0, 1, 1, 0]) == {}
