"""Nearest neighbours: does the representation still tell forgotten kinds from retained ones?

Idea: that of `probe`, with a classifier that needs no line between the two sides: it sees what the
distances of the representation still hold.

Formula: each test row takes the side of the majority of its k nearest rows among `train_forget` (1) and
as many rows of `train_retain` (0), by the Euclidean distance of z-scored columns. The score is the mean
of the accuracies on `test_forget` and on `test_retain`. There is none for requests that name no kinds,
which have no `test_forget`, and for fewer than k such training rows.

Source: Cover & Hart, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory
13, 1967.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data.bounds import COUNT
from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.representations import FITTED, balanced_accuracy, comparable, neighbours


@dataclass(frozen=True)
class NearestNeighbours(Metric):
    """`knn_accuracy`, from 0 to 1, with `k` neighbours."""

    k: Annotated[int, COUNT]

    kind: ClassVar[str] = "metrics.knn.NearestNeighbours"
    needs: ClassVar[Needs] = Needs.FEATURES
    parts: ClassVar[tuple[str, ...]] = ("train_forget", "train_retain", "test_forget", "test_retain")
    undefined: ClassVar[str] = "the request names no kinds of rows to tell apart, or fewer than k"

    def about(self) -> Mapping[str, Score]:
        says = "Balanced accuracy with which near training rows tell forgotten kinds of test rows."
        title = "neighbours' accuracy on forgotten kinds"
        return {"knn_accuracy": Score(says, Better.reference, "share", 1, 0.03, title=title, alone=True)}

    def __call__(self, evidence: Evidence) -> Scores:
        own = evidence.features.own
        if not comparable(own) or sum(len(own[part]) for part in FITTED) < self.k:
            return {}
        return {"knn_accuracy": balanced_accuracy(neighbours(own, self.k), own)}
