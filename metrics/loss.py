"""Loss: the mean cross-entropy of the rows.

Formula: (1/N) Σ −ln softmax(z)_y, in nats, on every part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from data.meanings import on_rows
from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.predictions import FORGET_PARTS, PARTS


@dataclass(frozen=True)
class Loss(Metric):
    """`<part>_loss`, in nats. The forgotten rows' loss shows over-forgetting that an accuracy of 0
    hides."""

    kind: ClassVar[str] = "metrics.accuracy.Loss"
    parts: ClassVar[tuple[str, ...]] = ("train", *PARTS)

    def about(self) -> Mapping[str, Score]:
        return {
            f"{part}_loss": Score(
                f"Mean cross-entropy of the {part.replace('_', ' ')} rows.",
                Better.reference if part in FORGET_PARTS else Better.lower,
                unit="nats",
                remembers=-1 if part in FORGET_PARTS else 0,
                title=on_rows("loss", part),
            )
            for part in self.parts
        }

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        # (1/N) Σ −ln p_y; float64, so that the sum over many rows keeps its digits
        return {
            f"{part}_loss": -predictions.own_logprobs(part).mean().item()
            for part in self.present(predictions)
        }
