"""Verdicts: a score against the distribution of retrained models, with known values and error rates."""

import math

import numpy as np
import pytest

from runner.report.verdicts import Difference, from_pairs, from_shared, verdict, would_decide

# values, references, (difference, half of the 90 % interval, df, half of the 95 % interval), verdict;
# the margin is 0.03 and a higher value remembers
CASES = {
    "matches": (
        [0.8, 0.81, 0.79],
        [0.8, 0.79, 0.81, 0.8],
        (0.0, 0.015236287, 3.857142857, 0.019922548),
    ),
    "under-forgets": ([0.95], [0.8, 0.79, 0.81, 0.8], (0.15, 0.021483171, 3, 0.029051627)),
    "over-forgets": (
        [0.4, 0.42],
        [0.8, 0.79, 0.81, 0.8],
        (-0.39, 0.044833102, 1.348623853, 0.076254522),
    ),
    "unclear": ([0.82], [0.8, 0.76, 0.84, 0.8], (0.02, 0.085932683, 3, 0.116206509)),
}


@pytest.mark.parametrize("word", CASES)
def test_a_score_against_retrained_models_of_the_same_request(word: str) -> None:
    values, references, (mean, half_90, freedom, half_95) = CASES[word]
    found = from_shared(values, references)
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.half_width(0.90) == pytest.approx(half_90, rel=1e-6)
    assert found.half_width(0.95) == pytest.approx(half_95, rel=1e-6)
    assert found.freedom == pytest.approx(freedom, rel=1e-6)
    assert verdict(found, 0.03, 1, "reference") == word


def exactly(mean: float) -> Difference:
    return Difference(mean, 0.0, math.inf, 3)


def test_the_sign_tells_remembering_from_over_forgetting_and_damage_from_gain() -> None:
    more, less = exactly(0.1), exactly(-0.1)
    assert verdict(more, 0.03, 1, "reference") == verdict(less, 0.03, -1, "reference") == "under-forgets"
    assert verdict(less, 0.03, 1, "reference") == verdict(more, 0.03, -1, "reference") == "over-forgets"
    assert verdict(more, 0.03, 0, "reference") == verdict(less, 0.03, 0, "reference") == "differs"
    assert verdict(less, 0.03, 0, "higher") == verdict(more, 0.03, 0, "lower") == "damaged"
    assert verdict(more, 0.03, 0, "higher") == verdict(less, 0.03, 0, "lower") == "above"


def test_equal_seeds_are_judged_by_the_margin() -> None:
    assert verdict(exactly(0.03), 0.03, 1, "reference") == "matches"
    assert verdict(exactly(0.031), 0.03, 1, "reference") == "under-forgets"


def test_the_margin_itself_matches_whatever_a_difference_rounds_to() -> None:
    """As floating-point numbers, 0.52 is more than 0.02 from 0.5, and 0.82 less than that from 0.8."""
    assert 0.52 - 0.5 > 0.02 > 0.82 - 0.8
    for share in (0.5, 0.8):
        found = from_shared([share + 0.02] * 3, [share] * 4)
        assert verdict(found, 0.02, 1, "reference") == "matches"


def test_without_a_margin_nothing_matches() -> None:
    """A loss has no stated margin: close means are unclear, and far ones differ."""
    assert verdict(from_shared([1.0, 1.1], [1.0, 1.1, 1.0, 1.1]), None, -1, "reference") == "unclear"
    assert (
        verdict(from_shared([9.0, 9.1], [1.0, 1.1, 1.0, 1.1]), None, -1, "reference") == "over-forgets"
    )


def test_an_attack_that_finds_too_little_is_over_forgetting_and_not_private() -> None:
    """An AUC of 1e-5 tells members from others as well as one of 1 − 1e-5: the attacker turns it."""
    found = from_shared([1e-5], [0.5, 0.51, 0.49, 0.5])
    assert verdict(found, 0.03, 1, "reference") == "over-forgets"


def test_differences_of_requests_drawn_anew_have_an_interval_over_seeds() -> None:
    found = from_pairs([0.1, 0.2, 0.3])
    # t₀.₉₇₅,₂ · s/√3 = 4.302653 · 0.1/√3
    assert (found.mean, found.freedom) == (pytest.approx(0.2), 2)
    assert found.half_width(0.95) == pytest.approx(0.2484138, rel=1e-6)


@pytest.mark.parametrize(("n", "r", "often"), [(1, 4, 0.42), (1, 8, 0.64), (3, 4, 0.85), (3, 8, 0.90)])
def test_error_rates_at_a_margin_of_three_standard_deviations(n: int, r: int, often: float) -> None:
    """Apart from sampling error, a true gap of the margin passes for none in at most 5 %, and no gap is
    flagged in at most 5 % and found to match in a known share of trials."""
    random, trials = np.random.default_rng(0), 1500
    words = {0.0: [], 3.0: []}  # type: dict[float, list[str]]
    for gap, found in words.items():
        for _ in range(trials):
            own, others = random.normal(gap, 1, n).tolist(), random.normal(0, 1, r).tolist()
            found.append(verdict(from_shared(own, others), 3.0, 1, "reference"))
    # three standard errors of a share in 1500 trials
    slack = 3 * math.sqrt(0.25 / trials)
    assert words[3.0].count("matches") / trials <= 0.05 + slack
    flagged = trials - words[0.0].count("matches") - words[0.0].count("unclear")
    assert flagged / trials <= 0.05 + slack
    assert words[0.0].count("matches") / trials == pytest.approx(often, abs=slack)


def test_an_unclear_difference_names_the_seeds_that_would_decide() -> None:
    unclear = from_shared([0.82], [0.8, 0.76, 0.84, 0.8])
    n = would_decide(unclear, 0.03)
    assert n is not None
    # with s ≈ 0.033 and D = 0.02, the 90 % interval must be shorter than 0.01 or the 95 % one than 0.02
    s = 0.03266
    assert 2.0 * s * math.sqrt(2 / n) <= 0.021 < 2.0 * s * math.sqrt(2 / (n - 3))
    hopeless = from_shared([1.0], [1.0, -9.0, 11.0, 1.0])
    assert would_decide(hopeless, 1e-6) is None


def spread(centre: float, variance: float, n: int) -> list[float]:
    """Return n values of this mean and variance."""
    steps = np.array([(-1) ** place for place in range(n - n % 2)] + [0] * (n % 2), float)
    return (centre + steps * math.sqrt(variance / steps.var(ddof=1))).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("own", "others"), [(0.0, 0.01), (0.01, 0.0), (0.01, 0.004), (0.01, None)])
def test_so_many_values_of_the_same_spread_decide_and_fewer_do_not(
    own: float, others: float | None
) -> None:
    """Own and retrained models may spread differently; None stands for differences paired by seed."""

    def judged(n: int, r: int) -> Difference:
        if others is None:
            return from_pairs(spread(0.04, own, n))
        return from_shared(spread(0.54, own, n), spread(0.5, others, r))

    n = would_decide(judged(3, 8), 0.02)
    assert n is not None and n > 4
    words = [verdict(judged(each, each), 0.02, 1, "reference") for each in (n - 1, n)]
    assert words == ["unclear", "under-forgets"]
