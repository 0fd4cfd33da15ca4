"""Probes, nearest neighbours and similarities of representations: known cases and invariances."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics.cka import Cka
from metrics.evidence import Evidence, Features, Needs
from metrics.idi import Idi
from metrics.knn import NearestNeighbours
from metrics.metric import Metric, Scores
from metrics.probe import Probe
from metrics.statistics.representations import (
    balanced_accuracy,
    cka,
    comparable,
    information,
    logistic_probe,
    neighbours,
)

SIZES = {"train_forget": 200, "train_retain": 200, "test_forget": 100, "test_retain": 900}


def normal(apart: float, seed: int = 0, columns: int = 4) -> dict[str, Tensor]:
    """Return normal representations; forgotten and retained ones differ by `apart` in each column."""
    random = torch.Generator().manual_seed(seed)
    return {
        part: torch.randn(n, columns, generator=random) + apart * part.endswith("forget")
        for part, n in SIZES.items()
    }


def scores(
    metric: Metric,
    own: dict[str, Tensor],
    original: dict[str, Tensor],
    reference: dict[str, Tensor] | None,
) -> Scores:
    return metric(Evidence({Needs.FEATURES: Features(own, original, reference)}))


def score(
    metric: Metric, name: str, own: dict[str, Tensor], reference: dict[str, Tensor] | None = None
) -> float:
    """Return one score of a model whose original is far from forgetting."""
    value = scores(metric, own, normal(2.0, seed=1), reference)[name]
    assert isinstance(value, float)
    return value


# The probe and the neighbours


def test_the_probe_of_normal_sides_finds_what_the_best_line_finds() -> None:
    # two normal sides at distance d have the balanced accuracy Φ(d / 2); here d = 1 · √4
    wanted = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    error = math.sqrt(wanted * (1 - wanted) * (1 / 100 + 1 / 900) / 4)
    assert abs(score(Probe(), "probe_accuracy", normal(1.0)) - wanted) <= 3 * error


@pytest.mark.parametrize(
    ("metric", "name"), [(Probe(), "probe_accuracy"), (NearestNeighbours(5), "knn_accuracy")]
)
def test_sides_far_apart_are_told_and_equal_ones_are_not(metric: Metric, name: str) -> None:
    assert score(metric, name, normal(20.0)) == 1
    # a guess is right on half of each side: the variance of a side is ¼ / n
    error = math.sqrt((1 / 100 + 1 / 900) / 4) / 2
    assert abs(score(metric, name, normal(0.0)) - 0.5) <= 3 * error


@pytest.mark.parametrize(
    ("metric", "name"), [(Probe(), "probe_accuracy"), (NearestNeighbours(5), "knn_accuracy")]
)
def test_the_scale_of_a_column_does_not_matter(metric: Metric, name: str) -> None:
    features = normal(1.0)
    scaled = {part: rows * torch.tensor([1.0, 1000.0, 1e-3, 5.0]) for part, rows in features.items()}
    assert score(metric, name, scaled) == pytest.approx(score(metric, name, features))


def test_the_accuracy_counts_both_sides_alike() -> None:
    features = normal(20.0)
    # half of the 100 forgotten rows lie on the retained side: (½ + 1) / 2, not 950 / 1000
    features["test_forget"][:50] -= 20
    assert balanced_accuracy(logistic_probe(features), features) == 0.75


def test_neighbours_see_what_no_line_sees() -> None:
    """Forgotten rows lie within a ring of retained ones."""
    features = normal(0.0, columns=2)
    for part in ("train_retain", "test_retain"):
        features[part] = 8 * features[part] / features[part].norm(dim=1, keepdim=True)
    assert score(NearestNeighbours(5), "knn_accuracy", features) > 0.99
    assert score(Probe(), "probe_accuracy", features) < 0.75


def test_a_row_takes_the_side_of_most_of_its_neighbours() -> None:
    features = {
        "train_forget": torch.tensor([[0.0], [1.0], [10.0]]),
        "train_retain": torch.tensor([[2.0], [11.0], [12.0]]),
        "test_forget": torch.tensor([[0.5], [11.2]]),
        "test_retain": torch.tensor([[10.4]]),
    }
    # of 3 neighbours, 0.5 has 0, 1 (forgotten) and 2; 11.2 and 10.4 have 11, 12 (retained) and 10
    assert balanced_accuracy(neighbours(features, 3), features) == (1 / 2 + 1) / 2
    # of one neighbour, 11.2 has 11, and 10.4 has 10
    assert balanced_accuracy(neighbours(features, 1), features) == (1 / 2 + 0) / 2


def test_fewer_rows_than_neighbours_have_no_score() -> None:
    assert scores(NearestNeighbours(401), normal(1.0), normal(1.0), None) == {}
    assert "knn_accuracy" in scores(NearestNeighbours(400), normal(1.0), normal(1.0), None)


# Information


def test_information_is_all_or_nothing_at_the_ends() -> None:
    assert information(normal(20.0)) == pytest.approx(math.log(2), abs=0.01)
    # a fitted probe of noise is a little worse than none: about d / 2n = 4 / 800 nats each
    assert -0.05 < information(normal(0.0)) <= 0.01


def test_information_does_not_saturate() -> None:
    """One forgotten row deep on the retained side costs what its logit says, not infinity."""
    features = normal(20.0)
    features["test_forget"][0] -= 2000
    assert math.isfinite(information(features))
    assert information(features) < 0


def test_idi_is_zero_as_the_retrained_and_one_as_the_original() -> None:
    original, reference = normal(2.0, seed=1), normal(0.5, seed=2)
    assert scores(Idi(), reference, original, reference) == {"idi": 0}
    assert scores(Idi(), original, original, reference) == {"idi": 1}
    between = scores(Idi(), normal(1.0), original, reference)["idi"]
    assert between == pytest.approx(
        (information(normal(1.0)) - information(reference))
        / (information(original) - information(reference))
    )
    assert 0 < between < 1  # type: ignore[operator]
    # less than the retrained model holds
    assert scores(Idi(), normal(0.0), original, reference)["idi"] < 0  # type: ignore[operator]


def test_idi_needs_an_original_that_knows_more_than_the_retrained() -> None:
    features = normal(1.0)
    assert scores(Idi(), features, features, features) == {}
    assert scores(Idi(), features, normal(0.0), normal(2.0)) == {}
    assert scores(Idi(), features, normal(2.0), None) == {}


# CKA


def test_cka_is_one_under_rotation_scale_and_shift() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(50, 6))
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    assert cka(rows, rows) == pytest.approx(1)
    assert cka(rows, -3 * rows @ rotation + 5) == pytest.approx(1)
    # an orthogonal map into more columns, too
    assert cka(rows, rows @ np.eye(6, 9)) == pytest.approx(1)


def test_cka_by_hand() -> None:
    # centred x (1, −1, 0), y (1, 1, −2): xᵀy = 0; with z (1, 0, −1): xᵀz = 1, xᵀx = zᵀz = 2
    x, y, z = ([[1.0], [-1.0], [0.0]], [[1.0], [1.0], [-2.0]], [[1.0], [0.0], [-1.0]])
    assert cka(x, y) == pytest.approx(0)
    # in one column, it is the squared correlation
    assert cka(x, z) == pytest.approx(1 / 4)


@pytest.mark.parametrize(("rows", "columns"), [(1000, 100), (100, 100), (100, 1000)])
def test_cka_of_unrelated_rows_is_biased_by_their_number(rows: int, columns: int) -> None:
    """E‖X̃ᵀỸ‖² = n d² and E‖X̃ᵀX̃‖² = n d² (1 + n/d): the ratio is d / (n + d)."""
    random = np.random.default_rng(0)
    found = [cka(*random.normal(size=(2, rows, columns))) for _ in range(10)]
    assert np.mean(found) == pytest.approx(columns / (rows + columns), rel=0.02)  # type: ignore[arg-type]


def test_the_cka_of_each_part() -> None:
    own = normal(1.0)
    turned = {part: 2 * rows.flip(1) for part, rows in own.items()}
    found = scores(Cka(), own, own, turned)
    assert found == {f"{part}_cka": pytest.approx(1) for part in SIZES}
    # the same representation of all rows has none
    flat = turned | {"test_forget": torch.ones(100, 4)}
    assert set(scores(Cka(), own, own, flat)) == {f"{part}_cka" for part in SIZES} - {"test_forget_cka"}
    assert scores(Cka(), own, own, None) == {}


# What has no score


@pytest.mark.parametrize("metric", [Probe(), NearestNeighbours(5), Idi(), Cka()])
@pytest.mark.parametrize("part", SIZES)
def test_a_part_without_rows_leaves_no_score(metric: Metric, part: str) -> None:
    """A single class cannot be told apart, and requests that name no kinds have no `test_forget`."""
    every = normal(1.0)
    less = {name: rows for name, rows in every.items() if name != part}
    assert not comparable(less)
    assert scores(metric, every, normal(2.0), normal(0.0))
    assert scores(metric, less, less, less) == {}


@pytest.mark.parametrize("metric", [Probe(), NearestNeighbours(5), Idi(), Cka()])
def test_a_model_that_diverged_has_no_score(metric: Metric) -> None:
    broken = normal(1.0)
    broken["test_retain"][3, 2] = torch.nan
    assert scores(metric, broken, normal(2.0), normal(0.0)) == {}
