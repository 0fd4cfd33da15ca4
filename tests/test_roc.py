"""Areas under the ROC curve, their errors and true positive rates, against closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metrics.attacks.report import report
from metrics.statistics.roc import auc, auc_error, tpr

MEMBERS = torch.tensor([0.9, 0.8, 0.8, 0.4], dtype=torch.float64)
OTHERS = torch.tensor([0.8, 0.5, 0.3, 0.2, 0.1], dtype=torch.float64)


def normal(n: int, shift: float, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=random, dtype=torch.float64) + shift


def numbers(n: int, least: int = 1) -> st.SearchStrategy[Tensor]:
    """Lists of few distinct scores, so that many are tied."""
    ranks = st.lists(st.integers(-3, 3), min_size=least, max_size=n)
    return ranks.map(lambda values: torch.tensor(values, dtype=torch.float64))


def test_the_area_and_its_error_worked_out_by_hand() -> None:
    """Of 20 pairs, 16 are in order and 2 are tied."""
    assert auc(MEMBERS, OTHERS) == pytest.approx((16 + 2 / 2) / 20)
    # placements of members: 5, 4.5, 4.5 and 3 in 5; of others: 2, 3, 4, 4 and 4 in 4
    below = torch.tensor([5, 4.5, 4.5, 3], dtype=torch.float64) / 5
    above = torch.tensor([2, 3, 4, 4, 4], dtype=torch.float64) / 4
    by_hand = math.sqrt(below.var() / 4 + above.var() / 5)
    assert auc_error(MEMBERS, OTHERS) == pytest.approx(by_hand) == pytest.approx(0.132287566)


@given(numbers(12), numbers(12))
def test_the_area_is_the_share_of_pairs_in_order(members: Tensor, others: Tensor) -> None:
    pairs = members[:, None] - others
    share = (pairs > 0).double().mean() + (pairs == 0).double().mean() / 2
    assert auc(members, others) == pytest.approx(share.item(), abs=1e-12)


@given(numbers(12), numbers(12))
def test_changing_sides_or_signs_turns_the_area_round(members: Tensor, others: Tensor) -> None:
    found = auc(members, others)
    assert found is not None
    assert auc(others, members) == pytest.approx(1 - found)
    assert auc(-members, -others) == pytest.approx(1 - found)


def test_identical_rows_give_one_half_and_separated_rows_one() -> None:
    assert auc(OTHERS, OTHERS) == 0.5
    assert auc(OTHERS + 1, OTHERS) == 1.0 and auc(OTHERS - 1, OTHERS) == 0.0
    assert auc_error(OTHERS + 1, OTHERS) == 0.0


def test_only_the_order_counts() -> None:
    """So the scores may all be positive, or all negative."""
    for moved in (lambda s: s + 100, lambda s: s - 100, torch.exp):
        assert auc(moved(MEMBERS), moved(OTHERS)) == auc(MEMBERS, OTHERS)


def test_a_shift_of_a_normal_distribution() -> None:
    """N(δ, 1) against N(0, 1): Φ(δ/√2)."""
    for seed, shift in enumerate((0.0, 0.5, 1.0, 2.0)):
        members, others = normal(4000, shift, seed), normal(3000, 0, seed + 10)
        found, error = auc(members, others), auc_error(members, others)
        assert found is not None and error is not None
        expected = (1 + math.erf(shift / 2)) / 2  # Φ(δ/√2) = ½(1 + erf(δ/2))
        assert abs(found - expected) < 3 * error and error < 0.01


def test_permuted_labels_give_one_half_within_the_error() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.cat([normal(300, 2, 0), normal(200, 0, 1)])
    rows = rows[torch.randperm(500, generator=random)]
    found, error = auc(rows[:300], rows[300:]), auc_error(rows[:300], rows[300:])
    assert found is not None and error is not None
    assert abs(found - 0.5) < 2 * error


def test_the_number_of_members_does_not_move_the_area() -> None:
    members, others = normal(2000, 1, 0), normal(2000, 0, 1)
    assert auc(members.repeat(10), others) == pytest.approx(auc(members, others), abs=1e-12)


def test_the_smallest_areas_are_told_apart() -> None:
    """One member of 100 is above one other of 1,000."""
    others = torch.arange(1000, dtype=torch.float64)
    members = torch.cat([torch.full((99,), -1.0), torch.tensor([0.5])]).double()
    assert auc(members, others) == pytest.approx(1e-5, rel=1e-9)


def test_the_error_is_that_of_a_bootstrap() -> None:
    members, others = normal(80, 1, 0).round(decimals=1), normal(120, 0, 1).round(decimals=1)
    random = torch.Generator().manual_seed(2)
    areas = []
    for _ in range(3000):
        drawn = [
            side[torch.randint(len(side), (len(side),), generator=random)] for side in (members, others)
        ]
        areas.append(auc(*drawn))
    spread = torch.tensor(areas, dtype=torch.float64).std().item()
    assert auc_error(members, others) == pytest.approx(spread, rel=0.05)


def test_the_area_needs_both_sides_and_its_error_two_rows_of_each() -> None:
    none, one = OTHERS[:0], OTHERS[:1]
    assert auc(none, OTHERS) is None and auc(OTHERS, none) is None
    assert auc(one, OTHERS) is not None
    assert auc_error(one, OTHERS) is None and auc_error(OTHERS, one) is None


HUNDRED = torch.arange(100, dtype=torch.float64) / 100


def test_a_rate_worked_out_by_hand() -> None:
    """One of 100 others may reach the threshold: 0.985 is above all others but 0.99."""
    rate = tpr(torch.tensor([0.995, 0.985, 0.5], dtype=torch.float64), HUNDRED, 100)
    assert rate is not None
    assert rate.value == pytest.approx(2 / 3)
    assert (rate.low, rate.high) == pytest.approx((0.094299324, 0.991596241))


def test_the_interval_of_no_hit_in_a_hundred() -> None:
    """Clopper and Pearson: the upper end solves (1 − p)¹⁰⁰ = 0.025."""
    rate = tpr(HUNDRED - 1, HUNDRED, 100)
    assert rate is not None
    assert (rate.value, rate.low) == (0.0, 0.0) and rate.high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_sums_that_differ_by_rounding_are_ties() -> None:
    """The same logits in another order, as in rows of 3 classes: equal entropies, apart from 1e-16."""
    half = torch.tensor([0.5], dtype=torch.float64)
    above = half.nextafter(torch.tensor([1.0], dtype=torch.float64))
    assert above > half and auc(above, half) == auc(half, above) == 0.5
    # but not what differs by a millionth of a millionth and more
    assert auc(half * (1 + 1e-11), half) == 1.0
    rate = tpr(above.repeat(4), half.repeat(100), 100)
    assert rate is not None and rate.value == 0.0


def test_infinite_scores_keep_their_order() -> None:
    infinite = torch.tensor([-torch.inf, torch.inf], dtype=torch.float64)
    assert auc(infinite[1:], infinite[:1]) == 1.0 and auc(infinite, torch.zeros(1)) == 0.5


def test_too_few_others_resolve_no_rate() -> None:
    assert tpr(MEMBERS, OTHERS, 100) is None
    assert tpr(MEMBERS, HUNDRED[1:], 100) is None
    assert tpr(MEMBERS, HUNDRED, 100) is not None and tpr(MEMBERS, HUNDRED, 1000) is None
    assert tpr(MEMBERS[:0], HUNDRED, 100) is None


def test_others_that_are_tied_at_the_threshold_all_count() -> None:
    """Three of 100 others share the largest score: a rule that takes them has a rate of 3 %."""
    others = HUNDRED.clamp(max=0.97)
    rate = tpr(torch.tensor([0.97, 0.98], dtype=torch.float64), others, 100)
    assert rate is not None and rate.value == 0.5


@given(numbers(12), numbers(30, least=5), st.sampled_from([2, 3, 5]))
def test_a_rate_is_the_largest_of_all_thresholds(members: Tensor, others: Tensor, one_in: int) -> None:
    allowed = [
        (members >= t).double().mean().item()
        for t in torch.cat([members, others, torch.tensor([99.0]).double()])
        if (others >= t).sum() * one_in <= len(others)
    ]
    rate = tpr(members, others, one_in)
    assert rate is not None and rate.value == pytest.approx(max(allowed))


def test_a_report_leaves_out_what_is_not_defined() -> None:
    assert report("x", MEMBERS, OTHERS) == {
        "x_auc": auc(MEMBERS, OTHERS),
        "x_auc_se": auc_error(MEMBERS, OTHERS),
    }
    found = report("x", MEMBERS, HUNDRED)
    assert set(found) == {"x_auc", "x_auc_se", "x_tpr_1", "x_tpr_1_low", "x_tpr_1_high"}
    assert report("x", MEMBERS, HUNDRED.repeat(10)).keys() > found.keys()
    assert not report("x", MEMBERS, OTHERS[:0])


def test_a_score_that_is_no_number_leaves_nothing_to_report() -> None:
    unknown = MEMBERS.clone()
    unknown[0] = torch.nan
    assert not report("x", unknown, HUNDRED) and not report("x", MEMBERS, unknown)
