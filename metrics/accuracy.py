"""Accuracies, losses and confusion matrices. Each row has the same weight."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from metrics.predictions import Metric, Predictions, Scores


@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of rows whose largest logit is that of their label, from 0 to 1: `<part>_accuracy`.

    In a request to relabel, `train_relabelled` and `test_relabelled` are the shares of the forgotten
    rows that are predicted as the new class.
    """

    kind: ClassVar[str] = "metrics.accuracy.Accuracy"

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        scores: Scores = {}
        for part, logits in predictions.logits.items():
            predicted = logits.argmax(1)
            # (1/N) Σ 1[argmax_k z_k = y], in float64
            scores[f"{part}_accuracy"] = (predicted == predictions.labels[part]).double().mean().item()
            if predictions.target is not None and part.endswith("_forget"):
                # (1/N) Σ 1[argmax_k z_k = target], for the forgotten rows
                became = (predicted == predictions.target).double().mean().item()
                scores[part.replace("forget", "relabelled")] = became
        return scores


@dataclass(frozen=True)
class Loss(Metric):
    """The mean cross-entropy of the rows, in nats: `<part>_loss`."""

    kind: ClassVar[str] = "metrics.accuracy.Loss"

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        return {
            # (1/N) Σ −log softmax(z)_y; float64, so that the sum over many rows keeps its digits
            f"{part}_loss": F.cross_entropy(logits.double(), predictions.labels[part]).item()
            for part, logits in predictions.logits.items()
        }


@dataclass(frozen=True)
class ClassAccuracy(Metric):
    """The accuracy on the test rows of each class that has any: `class_<k>_accuracy`."""

    kind: ClassVar[str] = "metrics.accuracy.ClassAccuracy"

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        labels = predictions.labels["test"]
        right = (predictions.logits["test"].argmax(1) == labels).double()
        # of each class k, (1/n) Σ 1[argmax_j z_j = y] over its n rows, those with y = k
        return {
            f"class_{k}_accuracy": right[labels == k].mean().item() for k in labels.unique().tolist()
        }


@dataclass(frozen=True)
class Confusion(Metric):
    """The counts of test rows by true class (first) and predicted class (second): `confusion` (K, K)."""

    kind: ClassVar[str] = "metrics.accuracy.Confusion"

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        k = predictions.classes
        # True class i and predicted class j make the number i·K + j, so that one bincount counts all.
        pairs = predictions.labels["test"] * k + predictions.logits["test"].argmax(1)
        counts = torch.bincount(pairs, minlength=k * k).view(k, k)
        return {"confusion": counts.tolist()}
