"""Accuracy: the share of rows that are classified correctly.

Formula: (1/N) Σ 1[argmax_k z_k = y], each row with the same weight, on every part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from data.meanings import on_rows
from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.predictions import FORGET_PARTS, PARTS

# The splits, and the words for them.
SPLITS = {"train": "training", "test": "test"}


@dataclass(frozen=True)
class Accuracy(Metric):
    """`<part>_accuracy`, from 0 to 1. Of equal logits, the first counts.

    In a request to relabel, `train_relabelled` and `test_relabelled` are the shares of the forgotten
    rows that are predicted as the new class.
    """

    kind: ClassVar[str] = "metrics.accuracy.Accuracy"
    parts: ClassVar[tuple[str, ...]] = ("train", *PARTS)

    def about(self) -> Mapping[str, Score]:
        found = {}
        for part in self.parts:
            words = part.replace("_", " ")
            forgotten = part in FORGET_PARTS
            found[f"{part}_accuracy"] = Score(
                f"Share of the {words} rows that are classified correctly.",
                Better.reference if forgotten else Better.higher,
                remembers=1 if forgotten else 0,
                margin=0.02,
                title=on_rows("accuracy", part),
            )
        for split in SPLITS:
            found[f"{split}_relabelled"] = Score(
                f"Share of the forgotten {split} rows that are predicted as the new class.",
                Better.reference,
                remembers=-1,
                margin=0.02,
                title=f"forgotten {SPLITS[split]} rows given the new class",
            )
        return found

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        scores: Scores = {}
        for part in self.present(predictions):
            # (1/N) Σ 1[argmax_k z_k = y]
            scores[f"{part}_accuracy"] = predictions.accuracy(part)
            if predictions.target is not None and part in FORGET_PARTS:
                # (1/N) Σ 1[argmax_k z_k = target], for the forgotten rows
                became = predictions.logits[part].argmax(1) == predictions.target
                scores[part.replace("forget", "relabelled")] = became.double().mean().item()
        return scores
