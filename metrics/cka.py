"""CKA: how alike the representations of a model and of the retrained model are.

Idea: two networks may hold the same representation rotated and scaled. Linear centred kernel alignment
compares what does not depend on that: the similarities between rows.

Formula: ‖X̃ᵀỸ‖²_F / (‖X̃ᵀX̃‖_F ‖ỸᵀỸ‖_F), with centred columns, for the inputs of the last linear layer of
the model, X (n, d), and of the paired retrained model, Y (n, d). It is 1 under rotation and scale. It is
biased upwards where n is not much larger than d: independent normal X and Y have about d / (n + d).

Requests that name no kinds have no score, as with `probe`.

Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", arXiv 1905.00414.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores, for_parts
from metrics.statistics.representations import cka, comparable


@dataclass(frozen=True)
class Cka(Metric):
    """`<part>_cka`, from 0 to 1."""

    kind: ClassVar[str] = "metrics.cka.Cka"
    needs: ClassVar[Needs] = Needs.FEATURES
    parts: ClassVar[tuple[str, ...]] = ("train_forget", "train_retain", "test_forget", "test_retain")
    undefined: ClassVar[str] = "the request names no kinds of rows"

    def about(self) -> Mapping[str, Score]:
        says = "Likeness of the representations of the {part} rows to the retrained model's."
        return for_parts(
            "cka", Score(says, Better.higher, title="likeness to retrained (CKA)"), self.parts
        )

    def __call__(self, evidence: Evidence) -> Scores:
        own, reference = evidence.features.own, evidence.features.reference
        if reference is None or not comparable(own) or not comparable(reference):
            return {}
        found = {part: cka(own[part].double(), reference[part].double()) for part in self.parts}
        return {f"{part}_cka": value for part, value in found.items() if value is not None}
