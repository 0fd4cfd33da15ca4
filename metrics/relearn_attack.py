"""Relearn attack: the forgotten accuracy that comes back while the model trains on retained rows alone.

Formulas: relearn_attack_accuracy = max_b accuracy_b, with the accuracy on the forget probe after b
batches of training on D_r; relearn_attack_gain = the same − accuracy_0. A retrained model never saw the
forgotten rows: its values are those of a model with nothing to recall. The excess over them was hidden,
not erased.
Source: Siddiqui et al., From Dormant to Deleted, 2025, arXiv 2505.22310.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores


@dataclass(frozen=True)
class RelearnAttack(Metric):
    """`relearn_attack_gain` and `relearn_attack_accuracy`, from 0 to 1, over the looks of the curve.

    Without a forget probe, of which the points then hold NaN, there is no score.
    """

    kind: ClassVar[str] = "metrics.relearn_attack.RelearnAttack"
    needs: ClassVar[Needs] = Needs.RECOVER
    parts: ClassVar[tuple[str, ...]] = ()

    def about(self) -> Mapping[str, Score]:
        during = "while the model trains on retained rows alone"
        return {
            "relearn_attack_gain": Score(
                f"Rise of the forgotten accuracy {during}.",
                Better.reference,
                remembers=1,
                margin=0.02,
                title="accuracy regained by a relearn attack",
            ),
            "relearn_attack_accuracy": Score(
                f"Largest forgotten accuracy {during}.",
                Better.reference,
                remembers=1,
                margin=0.02,
                title="forgotten accuracy after a relearn attack",
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        accuracies = [point.forget for point in evidence.recover.own]
        if any(math.isnan(accuracy) for accuracy in accuracies):
            return {}
        # the first look is at 0 batches
        largest = max(accuracies)
        return {
            "relearn_attack_gain": largest - accuracies[0],
            "relearn_attack_accuracy": largest,
        }
