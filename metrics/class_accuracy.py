"""Class accuracy: the accuracy on the test rows of each class.

Formula: for each class k with test rows, (1/n) Σ 1[argmax_j z_j = y] over its n rows, those with y = k.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores


@dataclass(frozen=True)
class ClassAccuracy(Metric):
    """`class_<k>_accuracy`, from 0 to 1."""

    kind: ClassVar[str] = "metrics.accuracy.ClassAccuracy"
    parts: ClassVar[tuple[str, ...]] = ("test",)

    def about(self) -> Mapping[str, Score]:
        says = "Share of the test rows of class k that are classified correctly."
        return {
            "class_<k>_accuracy": Score(
                says, Better.reference, margin=0.02, title="accuracy of class <k>"
            )
        }

    def __call__(self, evidence: Evidence) -> Scores:
        labels = evidence.predictions.labels["test"]
        right = evidence.predictions.right("test").double()
        return {
            f"class_{k}_accuracy": right[labels == k].mean().item() for k in labels.unique().tolist()
        }
