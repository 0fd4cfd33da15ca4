"""Top-5 accuracy: the share of rows whose label is among the five largest logits.

Formula: (1/N) Σ 1[#{k: z_k > z_y} < 5]. A logit equal to the label's does not count against it.
Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, 2015 (top-5 error).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from data.meanings import on_rows
from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.predictions import FORGET_PARTS


@dataclass(frozen=True)
class Top5(Metric):
    """`<part>_top5`, from 0 to 1. Absent with five classes or fewer, where it would always be 1."""

    kind: ClassVar[str] = "metrics.top5.Top5"

    def about(self) -> Mapping[str, Score]:
        return {
            f"{part}_top5": Score(
                f"Share of the {part.replace('_', ' ')} rows whose label has one of the five largest "
                "logits.",
                Better.reference if part in FORGET_PARTS else Better.higher,
                remembers=1 if part in FORGET_PARTS else 0,
                margin=0.02,
                title=on_rows("top-5 accuracy", part),
            )
            for part in self.parts
        }

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        if predictions.classes <= 5:
            return {}
        scores: Scores = {}
        for part in self.present(predictions):
            logits = predictions.logits[part]
            own = logits.gather(1, predictions.labels[part][:, None])
            # (N,): the number of classes that the model prefers to the label
            above = (logits > own).sum(1)
            scores[f"{part}_top5"] = (above < 5).double().mean().item()
        return scores
