"""Comparisons of populations: cases by hand, and what equal and shifted normal populations give."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metrics.challenge import Challenge
from metrics.challenge_official import ChallengeOfficial
from metrics.evidence import Evidence, Needs, Population
from metrics.klom import Klom
from metrics.klom_official import KlomOfficial
from metrics.margin_distance import MarginDistance
from metrics.metric import Metric, Scores
from metrics.predictions import Predictions
from metrics.statistics.populations import (
    epsilons,
    kl_divergences,
    margin_distances,
    official_epsilons,
    official_kl_divergences,
    qualities,
)

Numbers = NDArray[np.float64]
Compare = Callable[[Numbers, Numbers], Numbers]

ALL: list[Compare] = [
    margin_distances, kl_divergences, official_kl_divergences, epsilons, official_epsilons,
]  # fmt: skip

# 4 models of 3 rows: the first two rows overlap, the third does not.
UNLEARNED = np.array([[1.0, 0.0, 5.0], [2.0, 0.5, 6.0], [3.0, 1.0, 5.5], [4.0, 1.5, 6.5]])
RETRAINED = np.array([[0.0, 0.25, 0.0], [1.5, 0.75, 1.0], [2.5, 1.25, 0.5], [3.5, 1.75, 1.5]])


def normal(models: int, rows: int, shift: float = 0.0, seed: int = 0) -> tuple[Numbers, Numbers]:
    """Return margins of two populations with standard deviation 1 and means `shift` and 0."""
    drawn = np.random.default_rng([seed, models]).normal(size=(2, models, rows))
    return drawn[0] + shift, drawn[1]


def agrees(found: Numbers, wanted: float, digit: float) -> bool:
    """Return True if the mean of rows is `wanted`, which is rounded to a multiple of `digit`, within
    three standard errors."""
    error = float(found.std(ddof=1)) / math.sqrt(len(found))
    return abs(float(found.mean()) - wanted) <= digit / 2 + 3 * error


# Cases by hand


def test_rows_of_four_models_have_known_values() -> None:
    # the best threshold errs on 1 of 4 and on 2 of 4: ln((1 − 1e-5 − ½) / ¼)
    half = math.log((0.5 - 1e-5) / 0.25)
    assert half == pytest.approx(0.69312718)
    assert epsilons(UNLEARNED, RETRAINED) == pytest.approx([half, half, 50])
    # marks ½, ½ and 0
    assert qualities(epsilons(UNLEARNED, RETRAINED), 4).mean() == pytest.approx(1 / 3)
    # every retrained model lies in a bin without an unlearned one: ln(¼ / 1e-5)
    assert kl_divergences(UNLEARNED, RETRAINED) == pytest.approx([10.126631104] * 3)
    assert margin_distances(UNLEARNED, RETRAINED) == pytest.approx([0.625, 0.25, 5])


@pytest.mark.parametrize("compare", ALL)
def test_equal_samples_do_not_differ(compare: Compare) -> None:
    sample, _ = normal(8, 20)
    assert compare(sample, sample) == pytest.approx(np.zeros(20), abs=1e-12)
    # nor do models that are all alike
    assert compare(np.ones((4, 2)), np.ones((3, 2))).tolist() == [0, 0]


@pytest.mark.parametrize("compare", ALL)
def test_rows_are_compared_alone_and_models_have_no_order(compare: Compare) -> None:
    unlearned, retrained = normal(8, 5, shift=1.0)
    found = compare(unlearned, retrained)
    assert compare(unlearned[::-1], np.roll(retrained, 3, 0)) == pytest.approx(found)
    rows = [compare(unlearned[:, [t]], retrained[:, [t]])[0] for t in range(5)]
    assert found == pytest.approx(rows)


def test_the_mark_halves_with_each_half_of_epsilon_up_to_what_models_can_show() -> None:
    # ⌈ln 7⌉ = 2: the buckets [0, ½), [½, 1), [1, 1½), [1½, 2)
    rows = [0.0, 0.49, 0.5, 1.0, 1.5, 1.99, 2.0, 50.0]
    assert qualities(rows, 8).tolist() == [1, 1, 0.5, 0.25, 0.125, 0.125, 0, 0]
    # ⌈ln 15⌉ = 3 allows 2 and 2½ as well
    assert qualities([2.0, 2.5, 3.0], 16).tolist() == [1 / 16, 1 / 32, 0]


# Epsilon


def test_a_threshold_with_one_rate_of_zero_does_not_count() -> None:
    # Thresholds 1, 2, 3, 4, in turn: FPR and FNR (1, 0), (½, 0), (½, ½), (0, ½). Only (½, ½) counts, and
    # it gives ln(1 − 1e-5) < 0.
    assert epsilons([[2], [4]], [[1], [3]]).tolist() == [0]


def test_epsilon_is_the_same_if_the_samples_change_places() -> None:
    unlearned, retrained = normal(8, 50, shift=0.7)
    assert epsilons(unlearned, retrained) == pytest.approx(epsilons(retrained, unlearned))


def test_a_sample_in_a_gap_of_the_other_is_told_apart() -> None:
    # no threshold parts them, and the range of the narrower one does
    assert epsilons([[4], [5], [6]], [[0], [1], [9]]).tolist() == [50]
    assert epsilons([[4], [5], [6]], [[0], [5], [9]]).tolist() != [50]


def test_a_range_of_under_one_percent_is_told_apart() -> None:
    # an unlearned model lies among the retrained ones in both cases
    narrow = np.array([[0.0], [0.5], [1.0]])
    assert epsilons(narrow, [[0.0], [0.5], [100.0]]).tolist() != [50]
    assert epsilons(narrow, [[0.0], [0.5], [100.1]]).tolist() == [50]


def test_the_official_epsilon_sees_every_threshold_and_every_interval() -> None:
    """Against its definition, one interval after the other."""
    unlearned, retrained = normal(6, 3, shift=0.5)
    for row, found in enumerate(official_epsilons(unlearned, retrained)):
        assert found == pytest.approx(by_the_rules(unlearned[:, row], retrained[:, row]))


def by_the_rules(u: Numbers, r: Numbers) -> float:
    upper, lower = (u, r) if np.median(u) > np.median(r) else (r, u)
    both = np.concatenate([u, r])
    grid = np.linspace(both.min(), both.max(), math.ceil(100 * np.ptp(both)))
    rates = [((lower >= t).mean(), (upper < t).mean()) for t in grid]
    narrow, wide = (u, r) if np.ptp(u) < np.ptp(r) else (r, u)
    low, high = narrow.min() + np.ptp(narrow) - 2, narrow.max() + 2
    for right in np.linspace(low, high, math.ceil(100 * (high - low))):
        left = np.linspace(right - np.ptp(narrow) - 2, right - np.ptp(narrow) + 2, 400)[:, None]
        inside = [((left <= side) & (side <= right)).mean(1) for side in (wide, narrow)]
        rates += zip(inside[0], 1 - inside[1], strict=True)
    fpr, fnr = np.array([rate for rate in rates if min(rate) > 0]).T
    assert not any(sum(rate) == 0 for rate in rates)
    with np.errstate(invalid="ignore"):
        bounds = np.log([(1 - 1e-5 - fpr) / fnr, (1 - 1e-5 - fnr) / fpr])
    return max(0.0, float(np.nanmax(bounds)))


# KLOM


def test_klom_is_the_divergence_of_two_histograms_with_closed_ends() -> None:
    unlearned, retrained = normal(32, 5)
    for row, found in enumerate(kl_divergences(unlearned, retrained[:20])):
        u, r = unlearned[:, row], retrained[:20, row]
        ends = (min(u.min(), r.min()), max(u.max(), r.max()))
        p, q = (np.histogram(side, 20, ends)[0] / len(side) for side in (r, u))
        wanted = sum(a * math.log(a / (b or 1e-5)) for a, b in zip(p, q, strict=True) if a)
        assert found == pytest.approx(wanted)


def test_margins_beyond_a_hundred_are_alike() -> None:
    far = np.array([[101.0], [-150.0], [0.0]])
    near = np.array([[100.0], [-100.0], [0.0]])
    assert kl_divergences(far, near).tolist() == [0]


def test_the_official_klom_drops_the_largest_margin() -> None:
    # On [0, 20] with bins of width 1: the retrained model at 20 is in no bin, and two of three are in
    # [0, 1) of the rest. Unlearned: 1 of 4 in [0, 1), none in [5, 6), which becomes 1e-5 of a sum of
    # 1 + 1e-5.
    retrained = [[0.0], [0.5], [5.0], [20.0]]
    unlearned = [[0.0], [2.0], [3.0], [7.0]]
    p, q = (2 / 3, 1 / 3), (0.25 / (1 + 1e-5), 1e-5 / (1 + 1e-5))
    wanted = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert official_kl_divergences(unlearned, retrained) == pytest.approx([wanted])


def test_the_official_klom_of_retrained_models_in_no_bin_is_undefined() -> None:
    assert np.isnan(official_kl_divergences([[0.0], [1.0]], [[2.0], [2.0]])).all()
    assert official_kl_divergences([[2.0], [2.0]], [[2.0], [2.0]]).tolist() == [0]


# Sizes


def test_populations_of_unequal_sizes() -> None:
    u, r = np.array([[0.0], [6.0]]), np.array([[0.0], [3.0], [6.0]])
    # |F_u − F_r| = ½ − ⅓ on [0, 3) and ⅔ − ½ on [3, 6)
    assert margin_distances(u, r) == pytest.approx([1.0])
    assert margin_distances(r, u) == pytest.approx([1.0])
    # p = ⅓ each, q = ½, 1e-5 and ½
    wanted = (2 * math.log(2 / 3) + math.log(1 / 3e-5)) / 3
    assert kl_divergences(u, r) == pytest.approx([wanted])
    # equal medians: unlearned is positive; t = 3: FPR ⅔, FNR ½; t = 6: FPR ⅓, FNR ½
    assert epsilons(u, r) == pytest.approx([math.log((1 - 1e-5 - 1 / 2) / (1 / 3))])


# The official KLOM would drop the largest margin twice.
@pytest.mark.parametrize("compare", [each for each in ALL if each is not official_kl_divergences])
def test_each_model_twice_is_the_same_population(compare: Compare) -> None:
    unlearned, retrained = normal(6, 10, shift=1.0)
    assert compare(np.repeat(unlearned, 2, 0), retrained) == pytest.approx(compare(unlearned, retrained))


# Equal populations do not have a distance of 0, nor a quality of 1.


@pytest.mark.parametrize("models", [8, 16, 32, 64])
def test_epsilon_of_equal_populations(models: int) -> None:
    found = epsilons(*normal(models, 1000))
    mean = found[found < 50].mean()
    error = found[found < 50].std() / math.sqrt(1000)
    assert 1.1 - 3 * error <= mean <= 1.2 + 3 * error
    marks = qualities(found, models)
    error = marks.std() / math.sqrt(1000)
    assert 0.31 - 3 * error <= marks.mean() <= 0.35 + 3 * error


@pytest.mark.parametrize("models", [2, 3, 4, 8])
def test_few_models_are_told_apart_by_chance(models: int) -> None:
    """All margins of one population follow each other in 2N of the (2N over N) orders."""
    found = epsilons(*normal(models, 4000)) == 50
    chance = 2 * models / math.comb(2 * models, models)
    error = math.sqrt(chance * (1 - chance) / 4000)
    assert abs(found.mean() - chance) <= 3 * error


@pytest.mark.parametrize("models", [8, 32])
def test_the_official_epsilon_of_equal_populations(models: int) -> None:
    found = official_epsilons(*normal(models, 100))
    assert 1.5 - 0.3 * found.std() <= found.mean() <= 1.7 + 0.3 * found.std()
    marks = qualities(found, models)
    assert 0.15 - 0.3 * marks.std() <= marks.mean() <= 0.21 + 0.3 * marks.std()


@pytest.mark.parametrize(("models", "null"), [(8, 6.3), (16, 3.7), (32, 1.6), (64, 0.6)])
@pytest.mark.parametrize("klom", [kl_divergences, official_kl_divergences])
def test_klom_of_equal_populations(klom: Compare, models: int, null: float) -> None:
    assert agrees(klom(*normal(models, 400)), null, digit=0.1)


@pytest.mark.parametrize(("shift", "distance"), [(0.0, 1.11), (1.0, 2.07), (2.0, 3.97)])
def test_margin_distance_of_shifted_populations(shift: float, distance: float) -> None:
    """8 models, standard deviation 2, shifted by 0, 1 and 2 of it."""
    unlearned, retrained = normal(8, 1000, shift)
    assert agrees(margin_distances(2 * unlearned, 2 * retrained), distance, digit=0.01)


def test_a_large_shift_is_the_distance() -> None:
    # the samples do not overlap, so that W₁ is the difference of their means
    unlearned, retrained = normal(8, 50, shift=20)
    difference = unlearned.mean(0) - retrained.mean(0)
    assert margin_distances(unlearned, retrained) == pytest.approx(difference)


# The metrics


def model(margins: Numbers, retain: float = 1.0, test: float = 1.0) -> Predictions:
    """Return predictions with these margins of the forgotten rows, and with these accuracies.

    All labels are 0. With two classes and logits (φ, 0), the margin is φ.
    """
    values = {
        "train_forget": margins,
        "train_retain": np.where(np.arange(10) < 10 * retain, 1.0, -1.0),
        "test": np.where(np.arange(20) < 20 * test, 1.0, -1.0),
    }
    logits = {part: torch.tensor(np.stack([phi, 0 * phi], 1)).float() for part, phi in values.items()}
    labels = {part: torch.zeros(len(each), dtype=torch.int64) for part, each in logits.items()}
    return Predictions(logits, labels, classes=2)


def scores(metric: Metric, unlearned: list[Predictions], retrained: list[Predictions]) -> Scores:
    return metric(Evidence({Needs.POPULATION: Population(unlearned, retrained)}))


FOUR = [model(phi, retain=0.5, test=0.6) for phi in UNLEARNED]
OTHER = [model(phi, test=0.8) for phi in RETRAINED]


def test_a_score_is_the_mean_of_the_rows() -> None:
    assert scores(MarginDistance(), FOUR, OTHER)["margin_distance"] == pytest.approx([5.875 / 3])
    assert scores(Klom(), FOUR, OTHER)["klom"] == pytest.approx([10.126631104])
    official = official_kl_divergences(UNLEARNED, RETRAINED).mean()
    assert scores(KlomOfficial(), FOUR, OTHER)["klom_official"] == pytest.approx([official])


def test_the_scores_of_the_challenge() -> None:
    found = scores(Challenge(), FOUR, OTHER)
    assert found["epsilon"] == pytest.approx([0.69312718])
    assert found["epsilon_capped"] == pytest.approx([1 / 3])
    assert found["forgetting_quality"] == pytest.approx([1 / 3])
    # × 0.5 / 1 on retained rows × 0.6 / 0.8 on test rows
    assert found["forgetting_score"] == pytest.approx([1 / 3 * 0.5 * 0.75])


@pytest.mark.parametrize(
    "metric", [MarginDistance(), Klom(), KlomOfficial(), Challenge(), ChallengeOfficial(100)]
)
def test_the_null_compares_the_first_half_of_the_retrained_models_with_the_second(
    metric: Metric,
) -> None:
    unlearned, retrained = ([model(phi) for phi in each] for each in normal(9, 4))
    found = scores(metric, unlearned, retrained)
    halves = scores(metric, retrained[:4], retrained[4:8])
    nulls = {name: value for name, value in found.items() if name.endswith("_null")}
    assert nulls and len(nulls) == len(found) / 2
    assert nulls == {f"{name}_null": halves[name] for name in halves if not name.endswith("_null")}
    assert set(metric.about()) == set(found)


def test_one_retrained_model_has_no_null() -> None:
    assert set(scores(MarginDistance(), FOUR, OTHER[:1])) == {"margin_distance"}


def test_two_models_have_no_quality() -> None:
    """ln(N − 1) is 0: there is no bucket."""
    assert set(scores(Challenge(), FOUR[:2], OTHER[:1])) == {"epsilon", "epsilon_capped"}
    assert not scores(ChallengeOfficial(100), FOUR[:2], OTHER[:1])


def test_the_official_quality_is_that_of_the_first_rows() -> None:
    # the first two rows of UNLEARNED and RETRAINED overlap
    two = scores(ChallengeOfficial(2), FOUR, OTHER)["forgetting_quality_official"]
    assert two == [qualities(official_epsilons(UNLEARNED, RETRAINED)[:2], 4).mean()]
    all_rows = scores(ChallengeOfficial(100), FOUR, OTHER)["forgetting_quality_official"]
    assert all_rows == pytest.approx([two[0] * 2 / 3])  # type: ignore[operator]


@pytest.mark.parametrize(
    "metric", [MarginDistance(), Klom(), KlomOfficial(), Challenge(), ChallengeOfficial(100)]
)
def test_a_model_that_diverged_leaves_only_the_null(metric: Metric) -> None:
    diverged = model(np.array([1.0, np.nan, 1.0]))
    found = scores(metric, [*FOUR, diverged], OTHER)
    assert all(name.endswith("_null") for name in found)
    assert not scores(metric, FOUR, [diverged, *OTHER])


def test_accuracies_of_zero_have_no_ratio() -> None:
    wrong = [model(phi, retain=0.0) for phi in RETRAINED]
    found = scores(Challenge(), FOUR, wrong)
    assert "forgetting_quality" in found and "forgetting_score" not in found
