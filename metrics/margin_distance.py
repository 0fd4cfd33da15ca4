"""Margin distance: how far the margins of unlearned models lie from those of retrained models.

Idea: unlearning is right if its models are distributed as retrained ones are. For each forgotten row,
the margins φ = z_y − logsumexp_{j≠y} z_j of N unlearned and R retrained models are two samples. Their
distance has the unit of the logits, and needs fewer models than a comparison of histograms.

Formula: mean over the forgotten training rows of W₁(φ_u, φ_r) = ∫ |F_u(t) − F_r(t)| dt.

Two equal populations have a distance above 0: 1.1 with 8 models each and margins of standard deviation
2. The null shows it for half of the retrained models against the other half. Half as many models make
the distance √2 times as large.

Source: the 1-Wasserstein distance of the margins that KLOM compares (Georgiev et al., "Attribute-to-
Delete", arXiv 2410.23232).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.null import Models, with_null, with_nulls
from metrics.statistics.populations import margin_distances, margins_of


@dataclass(frozen=True)
class MarginDistance(Metric):
    """`margin_distance` and `margin_distance_null`, in logits, from 0."""

    kind: ClassVar[str] = "metrics.margin_distance.MarginDistance"
    needs: ClassVar[Needs] = Needs.POPULATION
    parts: ClassVar[tuple[str, ...]] = ("train_forget",)

    def about(self) -> Mapping[str, Score]:
        says = "Mean distance of the margins of unlearned and retrained models on the forgotten rows."
        return with_nulls(
            {"margin_distance": Score(says, Better.lower, "logits", title="distance of margins")}
        )

    def __call__(self, evidence: Evidence) -> Scores:
        return with_null(_compared, evidence.population)


def _compared(unlearned: Models, retrained: Models) -> dict[str, float]:
    distances = margin_distances(margins_of(unlearned), margins_of(retrained))
    return {"margin_distance": float(distances.mean())}
