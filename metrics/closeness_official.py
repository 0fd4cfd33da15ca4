"""Closeness as published code prints it: js_official, zrf_official, activation_distance_official.

Formulas, with p of the model, q of the retrained one and m = ½(p + q): js_official =
(1/N) Σ ½[KL(m ‖ p) + KL(m ‖ q)]/K in float32; zrf_official = 1 − the same with q of a random model;
activation_distance_official = √((1/N) Σ ‖p − q‖₂²). The rows are the forgotten test rows if the request
names classes, else the forgotten training rows.
Differs from the definitions: the divergences are reversed and divided by K, so that js_official has no
upper limit, and zrf_official no lower one. The distance is a root mean square.
Source: the code of Bad Teaching, SSD and SUPREME (JSDiv in metrics.py, utils.py and
eval_metrics/jsdiv.py). SSD's random model is in training mode there; here it is in evaluation mode.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.predictions import FORGET_PARTS
from metrics.statistics.divergences import distance, reversed_jensen_shannon


@dataclass(frozen=True)
class ClosenessOfficial(Metric):
    """`js_official`, `zrf_official` and `activation_distance_official`.

    The first two are absent where a probability underflows in float32: they are then infinite or NaN.
    """

    kind: ClassVar[str] = "metrics.closeness_official.ClosenessOfficial"
    needs: ClassVar[Needs] = Needs.PREDICTIONS | Needs.REFERENCE | Needs.RANDOM
    parts: ClassVar[tuple[str, ...]] = FORGET_PARTS

    def about(self) -> Mapping[str, Score]:
        return {
            "js_official": Score(
                "Reversed Jensen-Shannon divergence from the retrained model, divided by the number of "
                "classes, as published code computes it.",
                Better.lower,
                unit="nats",
                title="Jensen-Shannon divergence, as published code has it",
            ),
            "zrf_official": Score(
                "One minus the reversed Jensen-Shannon divergence from a random model, divided by the "
                "number of classes, as published code computes it.",
                Better.reference,
                title="ZRF, as published code has it",
                alone=True,
            ),
            "activation_distance_official": Score(
                "Root mean square distance between the probabilities of the model and of the retrained "
                "one, as published code computes it.",
                Better.lower,
                unit="probability",
                title="activation distance, as published code has it",
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        own, reference, random = evidence.predictions, evidence.reference, evidence.random
        rows = self.present(own)
        if not rows:
            return {}
        part = rows[-1]  # the test rows, if any are forgotten
        js, to_random = (
            reversed_jensen_shannon(own.logits[part], other.logits[part])
            for other in (reference, random)
        )
        # √((1/N) Σ ‖p − q‖₂²)
        squares = distance(own.logprobs(part), reference.logprobs(part), order=2).square()
        scores = {
            "js_official": js,
            "zrf_official": 1 - to_random,
            "activation_distance_official": squares.mean().sqrt().item(),
        }
        return {name: value for name, value in scores.items() if math.isfinite(value)}
