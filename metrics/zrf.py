"""ZRF, zero retrain forgetting: the likeness of the predictions on forgotten rows to a random model's.

Formula: 1 − (1/N) Σ JS(p, p_random)/ln 2. p_random are the predictions of a model with random weights,
the same one for every model of a seed. In units of ln 2 the score lies between 0 and 1, as its paper
says. The value to reach is the retrained model's, not 1.
Source: Chundawat et al., Can Bad Teaching Induce Forgetting?, AAAI 2023, arXiv 2205.08096.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores, for_parts
from metrics.predictions import FORGET_PARTS
from metrics.statistics.divergences import jensen_shannon


@dataclass(frozen=True)
class ZeroRetrainForgetting(Metric):
    """`train_forget_zrf` and `test_forget_zrf`, from 0 to 1 (predictions like a random model's)."""

    kind: ClassVar[str] = "metrics.zrf.ZeroRetrainForgetting"
    needs: ClassVar[Needs] = Needs.PREDICTIONS | Needs.RANDOM
    parts: ClassVar[tuple[str, ...]] = FORGET_PARTS

    def about(self) -> Mapping[str, Score]:
        says = "Likeness of the predictions on the {part} rows to those of a model with random weights."
        title = "likeness to a random model (ZRF)"
        return for_parts("zrf", Score(says, Better.reference, title=title), self.parts)

    def __call__(self, evidence: Evidence) -> Scores:
        own, random = evidence.predictions, evidence.random
        scores: Scores = {}
        for part in self.present(own):
            js = jensen_shannon(own.logprobs(part), random.logprobs(part))
            scores[f"{part}_zrf"] = 1 - js.mean().item() / math.log(2)
        return scores
