"""Entropy: how sharp the outputs are.

Formula: (1/N) Σ −Σ_k p_k ln p_k of p = softmax(z), in nats, on every part: 0 if every answer is certain,
ln K if every answer is uniform.
Source: Shannon, A Mathematical Theory of Communication, 1948, section 6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from data.meanings import on_rows
from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.membership import entropies


@dataclass(frozen=True)
class Entropy(Metric):
    """`<part>_entropy`, in nats."""

    kind: ClassVar[str] = "metrics.entropy.Entropy"

    def about(self) -> Mapping[str, Score]:
        return {
            f"{part}_entropy": Score(
                f"Mean entropy of the outputs on the {part.replace('_', ' ')} rows.",
                Better.reference,
                unit="nats",
                title=on_rows("entropy", part),
            )
            for part in self.parts
        }

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        return {
            f"{part}_entropy": entropies(predictions, part).mean().item()
            for part in self.present(predictions)
        }
