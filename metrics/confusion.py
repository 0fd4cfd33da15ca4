"""Confusion: the counts of test rows by true class (first) and predicted class (second)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores


@dataclass(frozen=True)
class Confusion(Metric):
    """`confusion`, (K, K) counts."""

    kind: ClassVar[str] = "metrics.accuracy.Confusion"
    parts: ClassVar[tuple[str, ...]] = ("test",)

    def about(self) -> Mapping[str, Score]:
        says = "Test rows by true class (first) and predicted class (second)."
        return {"confusion": Score(says, Better.reference, unit="rows", title="confusion")}

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        k = predictions.classes
        # True class i and predicted class j make the number i·K + j, so that one bincount counts all.
        pairs = predictions.labels["test"] * k + predictions.logits["test"].argmax(1)
        counts = torch.bincount(pairs, minlength=k * k).view(k, k)
        return {"confusion": counts.tolist()}
