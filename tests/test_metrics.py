"""Metrics against numbers worked out by hand."""

import math

import pytest
import torch

from metrics.accuracy import Accuracy
from metrics.class_accuracy import ClassAccuracy
from metrics.confusion import Confusion
from metrics.evidence import Evidence, Needs
from metrics.loss import Loss
from metrics.metric import Metric, Scores
from metrics.predictions import Predictions, by_part, predict


def logits(*classes: int, k: int = 3) -> torch.Tensor:
    """Logits that predict these classes."""
    return torch.nn.functional.one_hot(torch.tensor(classes), k).float()


def example(target: int | None = None) -> Predictions:
    train = (logits(0, 0, 1, 2, 2), torch.tensor([0, 1, 1, 2, 2]), torch.tensor([0, 1, 2, 3, 4]))
    test = (logits(0, 2, 2), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    return by_part(
        {"train": train, "test": test},
        {"train": torch.tensor([1, 2]), "test": torch.tensor([1])},
        target,
    )


def scores_of(metric: Metric, predictions: Predictions) -> Scores:
    return metric(Evidence({Needs.PREDICTIONS: predictions}))


def test_accuracies_by_part() -> None:
    assert scores_of(Accuracy(), example()) == {
        "train_accuracy": 4 / 5,
        "train_forget_accuracy": 1 / 2,
        "train_retain_accuracy": 1.0,
        "test_forget_accuracy": 0.0,
        "test_retain_accuracy": 1.0,
        "test_accuracy": 2 / 3,
    }


def test_relabelled_shares_count_predictions_of_the_new_class() -> None:
    scores = scores_of(Accuracy(), example(target=2))
    assert scores["train_relabelled"] == 0.0 and scores["test_relabelled"] == 1.0


def test_an_empty_part_has_no_score() -> None:
    train = (logits(0, 1), torch.tensor([0, 1]), torch.tensor([0, 1]))
    parts = by_part(
        {"train": train, "test": train},
        {"train": torch.tensor([0]), "test": torch.tensor([], dtype=torch.int64)},
        None,
    )
    assert "test_forget_accuracy" not in scores_of(Accuracy(), parts)


def test_the_loss_of_knowing_nothing_is_the_log_of_the_number_of_classes() -> None:
    flat = (torch.zeros(4, 5), torch.tensor([0, 1, 2, 3]), torch.arange(4))
    parts = by_part(
        {"train": flat, "test": flat}, {"train": torch.tensor([0]), "test": torch.tensor([0])}, None
    )
    for loss in scores_of(Loss(), parts).values():
        assert loss == pytest.approx(math.log(5))


def test_class_accuracy_and_confusion() -> None:
    assert scores_of(ClassAccuracy(), example()) == {
        "class_0_accuracy": 1.0,
        "class_1_accuracy": 0.0,
        "class_2_accuracy": 1.0,
    }
    assert scores_of(Confusion(), example())["confusion"] == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_accuracy_is_weighted_by_sample_not_by_batch(digits) -> None:  # type: ignore[no-untyped-def]
    """SSD's published accuracies are means of batch means; these do not depend on the batch size."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    small, large = (predict(model, digits.test, size, False) for size in (7, 359))
    assert torch.allclose(small, large, atol=1e-6) and small.shape == (359, 10)
    assert torch.equal(small.argmax(1), large.argmax(1))
