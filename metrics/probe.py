"""Linear probe: does the representation still tell forgotten kinds from retained ones?

Idea: a method that changes the last layer alone makes the model answer as if it had forgotten, and
leaves what it knows in the representation. A linear classifier of the inputs of the last layer sees
that. The target is the retrained model's value, which is above ½: features learned from other classes
tell unseen classes apart too.

Formula: a logistic regression (C = 1, both sides balanced, z-scored columns) is fitted on `train_forget`
(1) and as many rows of `train_retain` (0). The score is the mean of its accuracies on `test_forget` and
on `test_retain`. Requests that name no kinds have no `test_forget` and no score.

Source: Alain & Bengio, "Understanding intermediate layers using linear classifier probes", arXiv
1610.01644.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.representations import balanced_accuracy, comparable, logistic_probe


@dataclass(frozen=True)
class Probe(Metric):
    """`probe_accuracy`, from 0 to 1."""

    kind: ClassVar[str] = "metrics.probe.Probe"
    needs: ClassVar[Needs] = Needs.FEATURES
    parts: ClassVar[tuple[str, ...]] = ("train_forget", "train_retain", "test_forget", "test_retain")
    undefined: ClassVar[str] = "the request names no kinds of rows to tell apart"

    def about(self) -> Mapping[str, Score]:
        says = (
            "Balanced accuracy of a linear probe that tells forgotten kinds of test rows from retained."
        )
        title = "probe's accuracy on forgotten kinds"
        return {
            "probe_accuracy": Score(says, Better.reference, "share", 1, 0.03, title=title, alone=True)
        }

    def __call__(self, evidence: Evidence) -> Scores:
        own = evidence.features.own
        if not comparable(own):
            return {}
        return {"probe_accuracy": balanced_accuracy(logistic_probe(own), own)}
