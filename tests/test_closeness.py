"""Closeness to the retrained model: closed forms, extremes, and properties of every pair of models."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metrics.closeness import Closeness
from metrics.closeness_official import ClosenessOfficial
from metrics.evidence import Evidence, Needs
from metrics.metric import Scores, scored
from metrics.predictions import Predictions
from metrics.statistics.divergences import jensen_shannon, kullback_leibler, reversed_jensen_shannon
from metrics.zrf import ZeroRetrainForgetting

LN2 = math.log(2)

# Logits by row and class.
Rows = list[list[float]]

LABELS = [0, 0, 1, 2, 2, 2]
OWN: Rows = [[3.0, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 4], [1, 0, 0], [0, 0, 1]]
REFERENCE: Rows = [[3.0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 3, 0], [1, 0, 0], [0, 0, 1]]


def predictions(logits: Rows, *parts: str) -> Predictions:
    """Return the same predictions on each part."""
    z, labels = torch.tensor(logits), torch.tensor(LABELS[: len(logits)])
    return Predictions(dict.fromkeys(parts, z), dict.fromkeys(parts, labels), z.shape[1])


def closeness(own: Rows, reference: Rows) -> dict[str, float]:
    """Return the scores of Closeness on a part, without its name."""
    given = {Needs.PREDICTIONS: own, Needs.REFERENCE: reference}
    scores = Closeness()(Evidence({need: predictions(z, "test") for need, z in given.items()}))
    single = {name: value for name, value in scores.items() if not isinstance(value, list)}
    return {name.removeprefix("test_"): value for name, value in single.items()}


def official(own: Predictions, other: Predictions) -> Scores:
    """Return the scores of ClosenessOfficial, with one model as the retrained one and the random one."""
    return scored(
        [ClosenessOfficial()],
        Evidence({Needs.PREDICTIONS: own, Needs.REFERENCE: other, Needs.RANDOM: other}),
    )


def zrf(own: Predictions, random: Predictions) -> Scores:
    return ZeroRetrainForgetting()(Evidence({Needs.PREDICTIONS: own, Needs.RANDOM: random}))


def test_six_rows_of_three_classes() -> None:
    """Every number was computed independently from the formulas."""
    assert closeness(OWN, REFERENCE) == pytest.approx(
        {
            "js": 0.138535522,
            "kl": 0.80820441,
            "activation_distance": 0.373912008,
            "activation_distance_l1": 0.533287906,
            "agreement": 0.666666667,
        },
        rel=1e-6,
    )
    own, other = predictions(OWN, "train_forget"), predictions(REFERENCE, "train_forget")
    assert zrf(own, other) == pytest.approx({"train_forget_zrf": 0.800135489}, rel=1e-6)
    assert official(own, other) == pytest.approx(
        {
            "js_official": 0.079860091,
            "zrf_official": 1 - 0.079860091,
            "activation_distance_official": 0.654140131,
        },
        rel=1e-6,
    )


def test_a_model_is_at_no_distance_from_itself() -> None:
    same = {"js": 0, "kl": 0, "activation_distance": 0, "activation_distance_l1": 0, "agreement": 1}
    assert closeness(OWN, OWN) == pytest.approx(same, abs=1e-15)
    own = predictions(OWN, "train_forget")
    assert zrf(own, own) == pytest.approx({"train_forget_zrf": 1}, abs=1e-15)
    # float32
    assert official(own, own) == pytest.approx(
        {"js_official": 0, "zrf_official": 1, "activation_distance_official": 0}, abs=1e-7
    )


@pytest.mark.parametrize("k", [2, 10])
def test_certain_models_of_different_classes_are_at_the_largest_distance(k: int) -> None:
    own, other = [[500.0, 0.0] + (k - 2) * [0.0]], [[0.0, 500.0] + (k - 2) * [0.0]]
    assert closeness(own, other) == pytest.approx(
        {
            "js": LN2,
            "kl": 500,  # ln p_k falls by the gap of the logits
            "activation_distance": math.sqrt(2),
            "activation_distance_l1": 2,
            "agreement": 0,
        }
    )


def test_kl_is_of_the_model_from_the_retrained_one() -> None:
    """KL(q ‖ p) = Σ q (ln q − ln p) with q of the retrained model: (1, 0), while p = (½, ½)."""
    assert closeness([[0.0, 0]], [[800.0, 0]])["kl"] == pytest.approx(LN2)
    assert closeness([[800.0, 0]], [[0.0, 0]])["kl"] == pytest.approx(400 - LN2)


def test_of_equal_logits_the_first_counts_for_agreement() -> None:
    assert closeness([[1.0, 1, 0]], [[2.0, 0, 0]])["agreement"] == 1
    assert closeness([[1.0, 1, 0]], [[0, 2.0, 0]])["agreement"] == 0


def test_a_part_without_rows_has_no_score() -> None:
    own = predictions(OWN, "test_retain", "test")
    scores = Closeness()(Evidence({Needs.PREDICTIONS: own, Needs.REFERENCE: own}))
    assert [name for name in scores if name.endswith("_js")] == ["test_retain_js", "test_js"]
    assert zrf(own, own) == {} and official(own, own) == {}


def log_probabilities(draw: st.DrawFn, n: int, k: int) -> torch.Tensor:
    logits = st.lists(st.floats(-200, 200, width=32), min_size=n * k, max_size=n * k)
    return torch.tensor(draw(logits), dtype=torch.float64).view(n, k).log_softmax(1)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of two models on the same rows."""
    n, k = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    return log_probabilities(draw, n, k), log_probabilities(draw, n, k)


@given(pairs())
def test_js_is_symmetric_and_between_0_and_ln_2(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    p, q = pair
    js = jensen_shannon(p, q)
    assert ((js >= 0) & (js <= LN2)).all()
    assert torch.allclose(js, jensen_shannon(q, p), atol=1e-14)
    # the mixture holds half of each model: JS ≤ ½ (KL(p ‖ q) + KL(q ‖ p)) / 2 (Lin, 1991)
    assert (js <= (kullback_leibler(p, q) + kullback_leibler(q, p)) / 4 + 1e-12).all()


@given(pairs())
def test_distances_are_bounded_and_order_as_norms_do(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    own, reference = (rows.float().tolist() for rows in pair)
    scores = closeness(own, reference)
    assert 0 <= scores["agreement"] <= 1 and scores["kl"] >= -1e-12
    l2, l1 = scores["activation_distance"], scores["activation_distance_l1"]
    assert 0 <= l2 <= l1 + 1e-12 and l1 <= 2 + 1e-12 and l2 <= math.sqrt(2) + 1e-12


def test_a_probability_that_rounds_to_0_leaves_js_and_kl_exact() -> None:
    """ln(softmax) would be −∞ here, and 0·∞ NaN."""
    p = torch.tensor([[0.0, -1e5]]).double().log_softmax(1)
    q = torch.tensor([[-1e5, 0.0]]).double().log_softmax(1)
    assert jensen_shannon(p, q).item() == pytest.approx(LN2)
    assert kullback_leibler(p, q).item() == pytest.approx(1e5)


def test_a_probability_of_0_leaves_js_and_the_reverse_kl_finite() -> None:
    """p = (1, 0) and q = (½, ½): KL(p ‖ q) = ln 2, KL(q ‖ p) = ∞, and with m = (¾, ¼)
    JS = ½ ln 4/3 + ½ (½ ln 2/3 + ½ ln 2)."""
    never, even = [[0.0, -math.inf]], [[0.0, 0.0]]
    js = (math.log(4 / 3) + (math.log(2 / 3) + LN2) / 2) / 2
    scores = closeness(even, never)
    assert scores["js"] == pytest.approx(js) and scores["kl"] == pytest.approx(LN2)
    assert closeness(never, even)["js"] == pytest.approx(js)
    assert closeness(never, even)["kl"] == math.inf
    # 0·(ln 0 − ln 0) is 0 too
    assert closeness(never, never)["js"] == closeness(never, never)["kl"] == 0
    # a model that has diverged is not taken for one that is certain
    assert math.isnan(closeness([[math.nan, 0.0]], even)["js"])


@pytest.mark.parametrize("a, value", [(20, 0.93), (60, 2.93)])
def test_published_js_grows_with_the_gap_of_the_logits_and_falls_with_the_classes(
    a: float, value: float
) -> None:
    """Disjoint one-hot predictions give (a/2 − ln 2)/K, which no ln 2 bounds."""
    p, q = torch.zeros(5, 10), torch.zeros(5, 10)
    p[:, 0], q[:, 1] = a, a
    found = reversed_jensen_shannon(p, q)
    assert found == pytest.approx((a / 2 - LN2) / 10, rel=1e-5)
    assert found == pytest.approx(value, abs=0.005)


def test_published_js_is_absent_where_a_probability_underflows() -> None:
    one = predictions([[0.0, 104, 0, 0]], "train_forget")
    disjoint = predictions([[104.0, 0, 0, 0]], "train_forget")
    flat = predictions([[0.0, 0, 0, 0]], "train_forget")
    assert math.isnan(
        reversed_jensen_shannon(torch.tensor([[0.0, 104, 0]]), torch.tensor([[104.0, 0, 0]]))
    )
    assert reversed_jensen_shannon(torch.tensor([[0.0, 104, 0]]), torch.zeros(1, 3)) == math.inf
    for other in (disjoint, flat):
        assert set(official(one, other)) == {"activation_distance_official"}


def test_published_numbers_are_of_test_rows_if_the_request_names_classes() -> None:
    test = predictions(OWN, "test_forget"), predictions(REFERENCE, "test_forget")
    both = [
        Predictions(
            {"train_forget": torch.zeros(2, 3), **one.logits},
            {"train_forget": torch.tensor([0, 1]), **one.labels},
            3,
        )
        for one in test
    ]
    assert official(*both) == official(*test)


def test_published_distance_is_the_root_of_the_mean_square() -> None:
    """Of ‖p − q‖ = 0 and √2: the mean is √½, the root mean square 1."""
    own, other = [[900.0, 0.0], [900.0, 0.0]], [[900.0, 0.0], [0.0, 900.0]]
    published = official(predictions(own, "train_forget"), predictions(other, "train_forget"))
    assert published["activation_distance_official"] == pytest.approx(1)
    assert closeness(own, other)["activation_distance"] == pytest.approx(math.sqrt(1 / 2))
