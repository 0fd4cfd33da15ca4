"""Recovery time: the training on retained rows until the retained accuracy is the original's again.

Formula: min {b: accuracy_b ≥ accuracy of the original − τ}, with the accuracy on the retain probe after
b batches of training on D_r by the original's recipe. It is 0 if nothing was damaged. b is the batch of
a look of the stored curve, so that another τ needs no training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data.bounds import SHARE
from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.crossings import durations, first, flag_of

UNITS = ("batches", "epochs", "seconds")


@dataclass(frozen=True)
class Recovery(Metric):
    """`recovery_batches`, `recovery_epochs` and `recovery_seconds`. `tolerance` is τ.

    If the budget ends before, they are absent and `recovery_batches_censored` and so on are 1.
    """

    kind: ClassVar[str] = "metrics.recovery.Recovery"
    needs: ClassVar[Needs] = Needs.RECOVER
    parts: ClassVar[tuple[str, ...]] = ()

    tolerance: Annotated[float, SHARE]

    def about(self) -> Mapping[str, Score]:
        says = "training on retained rows until their accuracy is the original's again, less a tolerance"
        found = {}
        for unit in UNITS:
            name = f"recovery_{unit}"
            title = f"{unit} of recovery"
            found[name] = Score(f"{unit.capitalize()} of {says}.", Better.lower, unit, title=title)
            found |= flag_of(name, found[name])
        return found

    def __call__(self, evidence: Evidence) -> Scores:
        curves = evidence.recover
        target = curves.start.retain - self.tolerance
        reached = first(curves.own, lambda point: point.retain, target)
        return {**durations("recovery", UNITS, reached, curves.batches_per_epoch)}
