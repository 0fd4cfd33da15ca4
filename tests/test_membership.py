"""Attacks on one model's predictions: populations of known kind, and the official twins' definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor

from metrics import mia_loss_official
from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Scores
from metrics.mia_bad_teacher_official import MiaBadTeacherOfficial
from metrics.mia_efficacy_official import MiaEfficacyOfficial
from metrics.mia_entropy import MiaEntropy
from metrics.mia_loss import MiaLoss
from metrics.mia_loss_official import MiaLossOfficial
from metrics.mia_ssd_official import MiaSSDOfficial
from metrics.predictions import Predictions
from metrics.statistics.membership import entropies

OFFICIAL = [MiaSSDOfficial(), MiaBadTeacherOfficial(), MiaEfficacyOfficial(), MiaLossOfficial()]


def knowing(**margins: Tensor) -> Predictions:
    """Return predictions of two classes whose margins φ of the label, class 0, are these, by part."""
    logits = {
        part: torch.stack([phi, torch.zeros(len(phi))], 1).float() for part, phi in margins.items()
    }
    labels = {part: torch.zeros(len(phi), dtype=torch.int64) for part, phi in margins.items()}
    return Predictions(logits, labels, classes=2)


def normal(n: int, shift: float, seed: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)) + shift


def request(forget: Tensor, retain: Tensor, test: Tensor) -> Predictions:
    """Return the predictions of a request for random rows."""
    return knowing(train_forget=forget, train_retain=retain, test_retain=test, test=test)


def scores_of(metric: Metric, predictions: Predictions) -> Scores:
    return metric(Evidence({Needs.PREDICTIONS: predictions}))


def score(name: str, metric: Metric, predictions: Predictions) -> float:
    found = scores_of(metric, predictions)[name]
    assert isinstance(found, float)
    return found


# The loss attack


def test_the_area_is_of_the_forgotten_rows_against_all_test_rows() -> None:
    members, others = torch.tensor([0.9, 0.8, 0.8, 0.4]), torch.tensor([0.8, 0.5, 0.3, 0.2, 0.1])
    scores = scores_of(MiaLoss(), request(members, others, others))
    assert scores["mia_loss_auc"] == pytest.approx(0.85)
    assert scores["mia_loss_auc_se"] == pytest.approx(0.132287566)
    assert "mia_loss_tpr_1" not in scores, "5 others resolve no rate of 1 %"


def test_in_a_request_for_classes_it_is_against_test_rows_of_these_classes() -> None:
    rows = normal(50, 0, 0)
    parts = knowing(
        train_forget=rows, test_forget=rows - 100, train_retain=rows, test_retain=rows, test=rows
    )
    assert score("mia_loss_auc", MiaLoss(), parts) == 1.0


def test_probability_loss_and_margin_have_one_area() -> None:
    parts = request(normal(300, 1, 0), normal(300, 1, 1), normal(200, 0, 2))
    phi = parts.margins("train_forget")[:, None] - parts.margins("test")
    p = parts.own_logprobs("train_forget").exp()[:, None] - parts.own_logprobs("test").exp()
    shares = [(difference > 0).double().mean().item() for difference in (phi, p)]
    assert shares == pytest.approx([score("mia_loss_auc", MiaLoss(), parts)] * 2)


def test_certain_rows_are_still_ranked() -> None:
    """p_y is 1 in float64 from margins of 37 on, so that the loss is 0 for all of these rows."""
    parts = request(torch.full((10,), 60.0), torch.zeros(5), torch.full((10,), 50.0))
    assert (parts.own_logprobs("train_forget") == parts.own_logprobs("test")).all()
    assert score("mia_loss_auc", MiaLoss(), parts) == 1.0


def test_an_area_below_the_retrained_models_is_forgetting_too_much() -> None:
    """Rows that were made implausible give nearly 0. The area says so, and is no sign of success."""
    parts = request(normal(200, -50, 0), normal(200, 1, 1), normal(200, 0, 2))
    assert score("mia_loss_auc", MiaLoss(), parts) == 0.0
    about = MiaLoss().about()
    assert about["mia_loss_auc"].better is Better.reference and about["mia_loss_auc"].remembers == 1
    assert about["mia_efficacy"].remembers == -1


def test_members_are_those_of_the_lower_loss() -> None:
    """The share counts members: a classifier whose columns were swapped would give 0."""
    retain, test = normal(400, 4, 0), normal(300, 0, 1)
    trained_on, unseen = (request(normal(200, shift, 2), retain, test) for shift in (4, 0))
    assert score("mia_loss_share", MiaLoss(), trained_on) > 0.9
    assert score("mia_loss_share", MiaLoss(), unseen) < 0.5
    assert score("mia_efficacy", MiaLoss(), trained_on) < 0.1


def test_efficacy_and_share_are_of_all_rows() -> None:
    scores = scores_of(MiaLoss(), request(normal(77, 1, 0), normal(200, 2, 1), normal(100, 0, 2)))
    assert scores["mia_loss_share"] + scores["mia_efficacy"] == 1.0  # type: ignore[operator]


def test_the_share_is_that_of_the_exact_threshold() -> None:
    """Newton's method finds w and b of the balanced objective ½w² + Σ cᵢ·CEᵢ. Three losses of 10,000
    leave the others within a thousandth of a standard deviation."""
    known = torch.cat([normal(400, 2, 0), torch.tensor([-1e4])])
    unknown = torch.cat([normal(200, 0, 1), torch.tensor([-1e4, -1e4])])
    loss = torch.nn.functional.softplus(-torch.cat([known, unknown]).double())
    x, y = (loss - loss.mean()) / loss.std(correction=0), (torch.arange(603) < 401).double()
    c = torch.where(y == 1, 603 / (2 * 401), 603 / (2 * 202))
    rows, solution = torch.stack([x, torch.ones(603)], 1), torch.zeros(2, dtype=torch.float64)
    ridge = torch.diag(torch.tensor([1.0, 0.0])).double()
    for _ in range(50):
        p = (rows @ solution).sigmoid()
        slope = rows.T @ (c * (p - y)) + ridge @ solution
        curvature = (rows.T * (c * p * (1 - p))) @ rows + ridge
        solution -= torch.linalg.solve(curvature, slope)
    w, b = solution
    threshold = loss.mean() - b / w * loss.std(correction=0)
    # losses on both sides of the threshold, and the margins −ln(e^loss − 1) that have them
    near = threshold * torch.tensor([0.9999, 1.0001])
    assert score("mia_loss_share", MiaLoss(), request(-near.expm1().log(), known, unknown)) == 0.5


@pytest.mark.parametrize(("metric", "name"), [(MiaLoss(), "mia_loss"), (MiaEntropy(), "mia_entropy")])
def test_equal_populations_are_told_apart_no_better_than_by_chance(metric: Metric, name: str) -> None:
    """Both sides weigh the same, whatever their numbers: the share is that of a threshold without
    meaning, the same for members and others."""
    n, draws, apart = 2000, 20, []
    for seed in range(0, 4 * draws, 4):
        retain, test = normal(3 * n, 0, seed), normal(n, 0, seed + 1)
        found = scores_of(metric, request(normal(n, 0, seed + 2), retain, test))
        unseen = scores_of(metric, request(normal(n, 0, seed + 3), retain, test))
        apart.append(found[f"{name}_share"] - unseen[f"{name}_share"])  # type: ignore[operator]
        assert abs(found[f"{name}_auc"] - 0.5) < 4 * found[f"{name}_auc_se"]  # type: ignore[operator]
    # a share of n rows has a variance of at most ¼/n, and a difference twice that
    assert abs(sum(apart) / draws) < 3 * math.sqrt(2 * 0.25 / (n * draws))


def test_more_members_move_neither_area_nor_share() -> None:
    forget, retain, test = normal(500, 1, 0), normal(1000, 2, 1), normal(1000, 0, 2)
    few, many = (request(forget.repeat(n), retain.repeat(n), test) for n in (1, 8))
    for name, allowed in (("mia_loss_auc", 1e-12), ("mia_loss_share", 0.01)):
        assert score(name, MiaLoss(), many) == pytest.approx(score(name, MiaLoss(), few), abs=allowed)


def test_without_predicted_training_rows_there_is_no_attack() -> None:
    test = normal(50, 0, 0)
    for metric in (MiaLoss(), MiaEntropy(), *OFFICIAL):
        assert not scores_of(metric, knowing(test_retain=test, test=test))


def test_a_model_without_numbers_has_no_attack() -> None:
    parts = request(*(torch.full((20,), torch.nan) for _ in range(3)))
    for metric in (MiaLoss(), MiaEntropy(), *OFFICIAL):
        assert not scores_of(metric, parts)


# The entropy attack


def test_entropies_worked_out_by_hand() -> None:
    logits = [[3, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 4], [1, 0, 0], [0, 0, 1]]
    parts = Predictions({"test": torch.tensor(logits).float()}, {"test": torch.zeros(6).long()}, 3)
    by_hand = [0.366593961, 0.665572682, 0.975327829, 0.177323676, 0.975327829, 0.975327829]
    assert entropies(parts, "test").tolist() == pytest.approx(by_hand)


def test_a_flat_prediction_has_the_largest_entropy_and_a_certain_one_none() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [5000.0, 0.0, 0.0]])
    parts = Predictions({"test": logits}, {"test": torch.zeros(2).long()}, 3)
    assert entropies(parts, "test").tolist() == pytest.approx([math.log(3), 0])


def test_a_probability_of_0_adds_nothing_to_an_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf], [0.0, -math.inf, -math.inf], [math.nan, 0.0, 0.0]])
    parts = Predictions({"test": logits}, {"test": torch.zeros(3).long()}, 3)
    even, certain, diverged = entropies(parts, "test").tolist()
    assert (even, certain) == (pytest.approx(math.log(2)), 0) and math.isnan(diverged)


def test_certain_rows_are_members_even_where_they_are_wrong() -> None:
    parts = request(torch.full((30,), -9.0), normal(100, 9, 0), normal(100, 0, 1))
    assert score("mia_entropy_auc", MiaEntropy(), parts) == 1.0
    assert score("mia_entropy_share", MiaEntropy(), parts) == 1.0
    assert score("mia_loss_auc", MiaLoss(), parts) == 0.0


# Official twins


def test_official_twins_feed_no_verdict() -> None:
    for metric in OFFICIAL:
        for said in metric.about().values():
            assert said.better is Better.reference and said.margin is None and said.remembers == 0


def uneven(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return one number (n,) of 300 members and 100 others, and who is a member."""
    x = torch.cat([normal(300, 1, seed), normal(100, 0, seed + 1)]).double() / 3
    return x, torch.cat([torch.ones(300), torch.zeros(100)]).double()


def test_two_weight_vectors_at_c_1_are_one_at_c_2() -> None:
    """Minimise the multinomial objective ½(‖w₀‖² + ‖w₁‖²) + Σ cᵢ·CEᵢ directly, with balanced cᵢ."""
    x, y = uneven()
    weights = torch.where(y == 1, 400 / (2 * 300), 400 / (2 * 100))

    def objective(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.tensor(numbers, requires_grad=True)  # w₀, w₁, b₀, b₁
        logits = x[:, None] * w[:2] + w[2:]
        losses = torch.nn.functional.cross_entropy(logits, y.long(), reduction="none")
        value = w[:2].square().sum() / 2 + (weights * losses).sum()
        (slope,) = torch.autograd.grad(value, w)
        return value.item(), slope.numpy()

    w0, w1, b0, b1 = minimize(objective, np.zeros(4), jac=True, tol=1e-12).x
    found = LogisticRegression(C=2, class_weight="balanced", tol=1e-10).fit(
        x[:, None].numpy(), y.numpy()
    )
    assert (found.coef_.item(), found.intercept_.item()) == pytest.approx((w1 - w0, b1 - b0), rel=1e-5)
    other = LogisticRegression(C=1, class_weight="balanced", tol=1e-10).fit(
        x[:, None].numpy(), y.numpy()
    )
    assert other.coef_.item() != pytest.approx(w1 - w0, rel=1e-3)


def test_the_attack_of_ssd_is_fitted_on_the_whole_test_set() -> None:
    """The forgotten kind's test rows count as others: without them it would call all rows members."""
    certain, flat = torch.full((100,), 6.0), torch.zeros(100)
    parts = {"train_forget": certain, "train_retain": certain, "test_retain": flat}
    for metric, name in ((OFFICIAL[0], "mia_ssd_official"), (OFFICIAL[1], "mia_bad_teacher_official")):
        assert score(name, metric, knowing(**parts, test=flat)) == 1.0
        assert score(name, metric, knowing(**parts, test=certain.repeat(2))) != 1.0


def test_the_attack_of_ssd_counts_entropies_below_its_threshold() -> None:
    parts = request(normal(500, 1, 0), normal(400, 2, 1), normal(300, 0, 2))
    p = {part: rows.softmax(1) for part, rows in parts.logits.items()}
    entropy = {part: -(q * q.log()).sum(1).double().numpy() for part, q in p.items()}
    x = np.concatenate([entropy["train_retain"], entropy["test"]])
    attack = LogisticRegression(C=2, class_weight="balanced").fit(x[:, None], [1] * 400 + [0] * 300)
    threshold = -attack.intercept_.item() / attack.coef_.item()
    share = (entropy["train_forget"] < threshold).mean()
    assert score("mia_ssd_official", MiaSSDOfficial(), parts) == pytest.approx(share)


def test_the_attack_of_bad_teacher_is_a_support_vector_machine_without_balance() -> None:
    parts = request(normal(500, 1, 0), normal(400, 2, 1), normal(100, 0, 2))
    entropy = {part: entropies(parts, part).numpy()[:, None] for part in parts.logits}
    x = np.concatenate([entropy["train_retain"], entropy["test"]])
    attack = SVC(C=3, kernel="rbf", gamma=1).fit(x, [1] * 400 + [0] * 100)
    share = attack.predict(entropy["train_forget"]).mean()
    # float32 entropies may move single rows across the threshold
    found = score("mia_bad_teacher_official", MiaBadTeacherOfficial(), parts)
    assert found == pytest.approx(share, abs=2 / 500)
    balanced = SVC(C=3, kernel="rbf", gamma=1, class_weight="balanced").fit(x, [1] * 400 + [0] * 100)
    assert abs(balanced.predict(entropy["train_forget"]).mean() - share) > 0.1


def test_efficacy_official_needs_as_many_retained_rows_as_test_rows() -> None:
    forget = normal(50, 1, 0)
    known, unknown = normal(60, 5, 1), normal(60, -5, 2)
    found = scores_of(MiaEfficacyOfficial(), request(forget + 5, known, unknown))
    assert found == {"mia_efficacy_official": 0.0}
    assert scores_of(MiaEfficacyOfficial(), request(forget - 9, known, unknown)) == {
        "mia_efficacy_official": 1.0
    }
    assert not scores_of(MiaEfficacyOfficial(), request(forget, known[:59], unknown))


def test_loss_attacks_of_codes_tell_separated_rows_and_no_others() -> None:
    known, unknown = normal(300, 20, 0), normal(300, -20, 1)
    apart = scores_of(MiaLossOfficial(), request(known, known, unknown))
    assert apart == {"mia_loss_kit_official": 1.0, "mia_loss_scrub_official": 1.0}
    same = scores_of(MiaLossOfficial(), request(normal(3000, 0, 2), known, normal(2000, 0, 3)))
    # Splits share rows: their mean is at least as precise as one split of 400 rows.
    for value in same.values():
        assert value == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(400))


def test_loss_attacks_of_codes_have_equal_numbers_and_one_answer() -> None:
    """With 60 times as many others, calling every row an other would be right for 98 % of them."""
    parts = request(normal(50, 0, 0), normal(50, 0, 1), normal(3000, 0, 2))
    first, again = (scores_of(MiaLossOfficial(), parts) for _ in range(2))
    assert first == again
    assert first["mia_loss_kit_official"] < 0.8  # type: ignore[operator]


def test_scrub_takes_test_rows_of_the_forgotten_classes_and_the_kit_all() -> None:
    """Test rows of class 1, which no forgotten row has, are as well known as the forgotten rows."""
    known = torch.tensor([[20.0, 0.0]]).repeat(100, 1)
    unknown = torch.tensor([[-20.0, 0.0]]).repeat(100, 1)
    logits = {"train_forget": known, "test": torch.cat([unknown, known.flip(1)])}
    labels = {"train_forget": torch.zeros(100).long(), "test": torch.arange(2).repeat_interleave(100)}
    found = scores_of(MiaLossOfficial(), Predictions(logits, labels, 2))
    assert found["mia_loss_scrub_official"] == 1.0
    assert 0.6 < found["mia_loss_kit_official"] < 0.9  # type: ignore[operator]


def test_the_kit_has_ten_splits_and_scrub_five() -> None:
    """Of 6 rows a side, a split holds out 2: the mean of 10 splits is in twentieths, of 5 in tenths."""
    drawn = [request(*(normal(6, 0, seed + side) for side in range(3))) for seed in range(0, 30, 3)]
    found = [scores_of(MiaLossOfficial(), parts) for parts in drawn]
    twentieths = {
        name: [20 * scores[name] for scores in found]  # type: ignore[operator]
        for name in ("mia_loss_kit_official", "mia_loss_scrub_official")
    }
    for values in twentieths.values():
        assert values == pytest.approx([round(value) for value in values])
    assert any(round(value) % 2 for value in twentieths["mia_loss_kit_official"])
    assert not any(round(value) % 2 for value in twentieths["mia_loss_scrub_official"])


def test_scrub_cuts_losses_at_100() -> None:
    """A member with a loss of a million leaves the regression no slope; one with 100, little."""
    test, some = normal(100, 0, 0), torch.arange(100) < 1
    far, near = (
        request(normal(100, 4, 1).masked_fill(some, margin), test, test) for margin in (-1e6, -100)
    )
    cut, uncut = "mia_loss_scrub_official", "mia_loss_kit_official"
    assert score(cut, MiaLossOfficial(), far) == score(cut, MiaLossOfficial(), near)
    assert score(uncut, MiaLossOfficial(), far) != score(uncut, MiaLossOfficial(), near)


def test_fewer_than_six_rows_of_a_side_leave_a_split_without_it() -> None:
    many, five, six = normal(100, 0, 0), normal(5, 0, 1), normal(6, 0, 1)
    assert mia_loss_official.accuracy(five, many, 5) is None
    assert mia_loss_official.accuracy(many, five, 5) is None
    assert mia_loss_official.accuracy(six, many, 5) is not None
