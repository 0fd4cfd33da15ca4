"""RMIA, offline and online, against numbers worked out by hand and populations of known kind."""

import math
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from metrics.evidence import Evidence, Needs, Shadows
from metrics.metric import Scores
from metrics.predictions import Predictions
from metrics.rmia import Rmia
from metrics.rmia_online import RmiaOnline
from metrics.statistics import rmia
from metrics.statistics.roc import auc

OFFLINE = Rmia(a=0.3, gamma=1)
ONLINE = RmiaOnline(a=0.3, gamma=1)

TARGET_X = torch.tensor([0.9, 0.5, 0.99, 0.2], dtype=torch.float64)
REFS_X = torch.tensor([[0.6, 0.5, 0.9, 0.3], [0.7, 0.6, 0.95, 0.2]], dtype=torch.float64)
TARGET_Z = torch.tensor([0.8, 0.4, 0.6], dtype=torch.float64)
REFS_Z = torch.tensor([[0.8, 0.5, 0.6], [0.7, 0.4, 0.7]], dtype=torch.float64)


def knowing(forget: Tensor, test: Tensor, gone: bool = False) -> Predictions:
    """Return predictions whose margins φ of the label, class 0, are these."""
    logits = {
        part: torch.stack([margins, torch.zeros(len(margins))], 1).float()
        for part, margins in (("train_forget", forget), ("test", test))
    }
    labels = {part: torch.zeros(len(rows), dtype=torch.int64) for part, rows in logits.items()}
    return Predictions(
        MappingProxyType(logits), labels, classes=2, gone=frozenset({0}) if gone else frozenset()
    )


def logit(p: Tensor) -> Tensor:
    return p.double().logit()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Offline


@pytest.mark.parametrize(("heldout", "others"), [(198, 99), (199, 100)])
def test_a_low_rate_is_resolved_by_the_others_among_the_held_out_rows(heldout: int, others: int) -> None:
    assert OFFLINE.others(heldout, whole_classes=False) == others
    models = [knowing(normal(5, seed=s), normal(heldout, seed=s + 9)) for s in range(3)]
    scores = OFFLINE(Evidence({Needs.PREDICTIONS: models[0], Needs.REFERENCES: models[1:]}))
    assert "rmia_auc" in scores and ("rmia_tpr_1" in scores) == (others >= 100)
    assert OFFLINE.others(heldout, whole_classes=True) == 0


def test_ratios_and_scores_worked_out_by_hand() -> None:
    ratios_x = TARGET_X / rmia.expected(REFS_X, 0.3)
    ratios_z = TARGET_Z / rmia.expected(REFS_Z, 0.3)
    assert ratios_x.tolist() == pytest.approx([1.165048544, 0.706713781, 1.040735874, 0.390243902])
    assert ratios_z.tolist() == pytest.approx([0.955223881, 0.622568093, 0.776699029])
    found = rmia.scores(TARGET_X, REFS_X, TARGET_Z, REFS_Z, 0.3, 1)
    assert found.tolist() == pytest.approx([1, 1 / 3, 1, 0])


def test_sorting_counts_what_the_matrix_of_all_pairs_counts() -> None:
    x, z = normal(200, seed=0).exp().double(), normal(77, seed=1).exp().double()
    z[:20] = x[:20]  # equal ratios are no more than each other
    for gamma in (1, 2):
        pairs = (x[:, None] > gamma * z).double().mean(1)
        assert torch.equal(rmia.shares(x, z, gamma), pairs)


def test_equal_ratios_do_not_count() -> None:
    same = torch.full((3,), 0.7, dtype=torch.float64)
    assert rmia.shares(same, same, 1).tolist() == [0, 0, 0]


def test_gamma_only_rounds_the_order() -> None:
    """s rises with ρ, whatever γ."""
    x, z = normal(300, seed=0).exp().double().sort().values, normal(500, seed=1).exp().double()
    for gamma in (0.5, 1, 2):
        assert (rmia.shares(x, z, gamma).diff() >= 0).all()


def test_a_ratio_that_is_no_number_gives_no_score() -> None:
    x = torch.tensor([1.0, torch.nan], dtype=torch.float64)
    assert rmia.shares(x, x[:1], 1).isnan().tolist() == [False, True]
    assert rmia.shares(x[:1], x, 1).isnan().all()


def offline(scored: Predictions, *references: Predictions) -> Scores:
    return OFFLINE(Evidence({Needs.PREDICTIONS: scored, Needs.REFERENCES: references}))


def test_held_out_rows_take_turns_as_others_and_as_z() -> None:
    """Even positions are the others, odd ones the z: here p of the others is 0.2 and of the z the
    case's."""
    turns = torch.tensor([0.2, 0.8, 0.2, 0.4, 0.2, 0.6])
    refs = torch.tensor([[0.9, 0.8, 0.9, 0.5, 0.9, 0.6], [0.9, 0.7, 0.9, 0.4, 0.9, 0.7]])
    scored = knowing(logit(TARGET_X), logit(turns))
    references = [knowing(logit(x), logit(h)) for x, h in zip(REFS_X, refs, strict=True)]
    # the others' s is 0, as that of one of the four members
    assert offline(scored, *references)["rmia_auc"] == pytest.approx((3 + 1 / 2) / 4)


def test_a_row_that_is_hard_for_every_model_does_not_hide_the_others() -> None:
    """Rows differ in how hard they are by more than training changes them: the ratio takes that out."""
    hard, held_out = 2 * normal(400, seed=0), 2 * normal(800, seed=1)
    scored = knowing(hard + 1, held_out)
    references = [
        knowing(hard + 0.1 * normal(400, seed=j), held_out + 0.1 * normal(800, seed=9 + j))
        for j in range(2, 6)
    ]
    by_loss = auc(scored.margins("train_forget"), scored.margins("test"))
    assert by_loss == pytest.approx(0.638, abs=0.03), "Φ(1 / (2√2))"
    assert offline(scored, *references)["rmia_auc"] > 0.8  # type: ignore[operator]


def test_a_model_that_saw_nothing_is_at_one_half() -> None:
    hard, held_out = 3 * normal(2000, seed=0), 3 * normal(2000, seed=1)
    models = [
        knowing(hard + normal(2000, seed=2 + j), held_out + normal(2000, seed=20 + j)) for j in range(5)
    ]
    scores = offline(*models)
    found, error = scores["rmia_auc"], scores["rmia_auc_se"]
    assert abs(found - 0.5) < 2 * error  # type: ignore[operator]


def test_there_is_no_attack_without_references_or_on_whole_classes() -> None:
    rows = torch.zeros(4)
    scored = knowing(rows, rows)
    assert offline(scored, scored)
    assert not offline(scored)
    assert not offline(knowing(rows, rows, gone=True), scored)
    assert not offline(knowing(rows, rows[:1]), knowing(rows, rows[:1])), "no z"
    assert not OFFLINE(
        Evidence({Needs.PREDICTIONS: replace(scored, logits={"test": rows}), Needs.REFERENCES: [scored]})
    )


def test_part_of_the_forgotten_classes_retained_is_no_whole_class() -> None:
    rows = torch.zeros(4)
    scored = knowing(rows, rows, gone=True)
    some = {**scored.labels, "train_forget": torch.tensor([0, 0, 0, 1])}
    assert offline(replace(scored, labels=some), knowing(rows, rows))


# Online


def shadows(n: int, rows: int, remembers: float, seed: int = 0) -> Shadows:
    """Return shadow models whose originals know the rows that they saw by 2 more, in margins, and
    which keep `remembers` of that after forgetting."""
    hard, held_out = 3 * normal(rows, seed=seed), 3 * normal(rows, seed=seed + 1)
    random = torch.Generator().manual_seed(seed + 2)
    halves = [torch.randperm(rows, generator=random) < rows // 2 for _ in range(n // 2)]
    forgot = torch.stack([side for half in halves for side in (half, ~half)])
    models = {
        kept: [
            knowing(
                hard + kept * saw + 0.5 * normal(rows, seed=100 * seed + 10 * j + (kept == 2)),
                held_out + 0.5 * normal(rows, seed=100 * seed + 10 * j + 5 + (kept == 2)),
            )
            for j, saw in enumerate(forgot.float())
        ]
        for kept in (2.0, remembers)
    }
    return Shadows(models[2.0], models[remembers], forgot, torch.arange(rows))


def online(given: Shadows) -> Scores:
    return ONLINE(Evidence({Needs.SHADOWS: given}))


def areas(given: Shadows) -> Tensor:
    return torch.tensor(online(given)["rmia_online_auc"], dtype=torch.float64)


def test_a_method_that_retrains_is_at_one_half() -> None:
    found = areas(shadows(8, 1000, remembers=0.0))
    error = math.sqrt(1 / (12 * 500) * 2)  # of one AUC of equal populations, 500 against 500 rows
    assert len(found) == 8
    assert abs(found.mean() - 0.5) < error and (found - 0.5).abs().max() < 3 * error


def test_a_method_that_remembers_is_above_it() -> None:
    half, whole = areas(shadows(8, 1000, remembers=1.0)), areas(shadows(8, 1000, remembers=1.9))
    assert half.min() > 0.6 and half.mean() < whole.mean() and whole.min() > 0.7


def test_what_is_expected_is_the_mean_of_half_in_and_half_out() -> None:
    """Written with IN and OUT apart, as the definition is."""
    given = shadows(6, 40, remembers=1.0)
    p = torch.stack([m.own_logprobs("train_forget").exp() for m in given.originals])
    z = torch.stack([m.own_logprobs("test").exp()[1::2] for m in given.originals])
    found = []
    for target, model in enumerate(given.unlearned):
        others = torch.arange(6) // 2 != target // 2
        saw = given.forgot & others[:, None]
        missed = ~given.forgot & others[:, None]
        mean_in, mean_out = (p * saw).sum(0) / saw.sum(0), (p * missed).sum(0) / missed.sum(0)
        ratios_x = model.own_logprobs("train_forget").exp() / ((mean_in + mean_out) / 2)
        ratios_z = model.own_logprobs("test").exp()[1::2] / ((1.3 * z[others].mean(0) + 0.7) / 2)
        s = (ratios_x[:, None] > ratios_z).double().mean(1)
        found.append(auc(s[given.forgot[target]], s[~given.forgot[target]]))
    assert online(given)["rmia_online_auc"] == pytest.approx(found)


def test_rates_pool_the_rows_of_all_shadow_models() -> None:
    """25 others of each of 4 models are 100: just enough."""
    assert "rmia_online_tpr_1" in online(shadows(4, 50, remembers=1.0))
    assert "rmia_online_tpr_1" not in online(shadows(4, 48, remembers=1.0))


def test_one_pair_attacks_nothing() -> None:
    assert not online(shadows(2, 50, remembers=1.0))


def test_shadow_models_that_forgot_all_rows_or_none_have_no_area() -> None:
    """As with one row to forget."""
    forgot = torch.tensor([[True, True], [False, False]] * 2)
    assert online(replace(shadows(4, 2, remembers=1.0), forgot=forgot)) == {}
