"""Accuracies, losses and confusion on every part, weighted by sample."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from metrics.predictions import Metric, Predictions, Scores


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of rows whose largest logit is their label's, from 0 to 1: `<part>_accuracy`.

    In a request to relabel, `train_relabelled` and `test_relabelled` are the shares of the forgotten
    rows that are predicted as the new class.
    """

    kind: ClassVar[str] = "metrics.accuracy.Accuracy"

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        scores: Scores = {}
        for part, logits in predictions.logits.items():
            predicted = logits.argmax(1)
            scores[f"{part}_accuracy"] = (predicted == predictions.labels[part]).double().mean().item()
            if predictions.target is not None and part.endswith("_forget"):
                became = (predicted == predictions.target).double().mean().item()
                scores[part.replace("forget", "relabelled")] = became
        return scores


@dataclass(frozen=True)
class Loss(Metric):
    """Mean cross-entropy in nats: `<part>_loss`."""

    kind: ClassVar[str] = "metrics.accuracy.Loss"

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        return {
            f"{part}_loss": F.cross_entropy(logits.double(), predictions.labels[part]).item()
            for part, logits in predictions.logits.items()
        }


@dataclass(frozen=True)
class ClassAccuracy(Metric):
    """Accuracy on the test rows of each class: `class_<k>_accuracy`, for the classes that have any."""

    kind: ClassVar[str] = "metrics.accuracy.ClassAccuracy"

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        labels = predictions.labels["test"]
        right = (predictions.logits["test"].argmax(1) == labels).double()
        return {
            f"class_{k}_accuracy": right[labels == k].mean().item() for k in labels.unique().tolist()
        }


@dataclass(frozen=True)
class Confusion(Metric):
    """Counts of test rows by true class (row) and predicted class (column): `confusion`, (K, K)."""

    kind: ClassVar[str] = "metrics.accuracy.Confusion"

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        k = predictions.classes
        pairs = predictions.labels["test"] * k + predictions.logits["test"].argmax(1)
        counts = torch.bincount(pairs, minlength=k * k).view(k, k)
        return {"confusion": counts.tolist()}
