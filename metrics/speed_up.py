"""Speed-up: the cost of retraining divided by the cost of unlearning.

Formulas: speed_up = seconds of the retrained model / seconds of the model; speed_up_examples = the same
with gradient examples, which do not depend on the machine and its load.
Source: Jia et al., Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023, arXiv 2304.04934
(run-time efficiency).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores

# Score: the name of the cost.
COSTS = {"speed_up": "seconds", "speed_up_examples": "gradient_examples"}


@dataclass(frozen=True)
class SpeedUp(Metric):
    """`speed_up` and `speed_up_examples`: 1 for a retrained model, absent where a cost is 0."""

    kind: ClassVar[str] = "metrics.speed_up.SpeedUp"
    needs: ClassVar[Needs] = Needs.COSTS
    parts: ClassVar[tuple[str, ...]] = ()

    def about(self) -> Mapping[str, Score]:
        return {
            name: Score(
                f"Retraining's {cost.replace('_', ' ')} divided by the model's.",
                Better.higher,
                "ratio",
                title=f"speed-up in {cost.replace('_', ' ')}",
            )
            for name, cost in COSTS.items()
        }

    def __call__(self, evidence: Evidence) -> Scores:
        own, reference = evidence.costs.own, evidence.costs.reference
        if reference is None:
            return {}
        defined = [(name, cost) for name, cost in COSTS.items() if own[cost] > 0 and reference[cost] > 0]
        return {name: reference[cost] / own[cost] for name, cost in defined}
