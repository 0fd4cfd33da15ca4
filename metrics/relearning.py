"""Relearn time: the training on all rows until the forgotten accuracy is nearly the original's again.

Formulas: min {b: accuracy_b ≥ (1 − a)·accuracy of the original}, with the accuracy on the forget probe
after b batches of training on D; anamnesis index = max(1, b of the model) / max(1, b of the retrained
one). An index of 1 is the aim: below 1 the model still knows the rows, above 1 it forgot too much. D_f
alone is no test: every model learns a class from it in a handful of batches. b is the batch of a look of
the stored curve, so that another a needs no training.
Sources: Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020, arXiv 1911.04933 (relearn
time); Chundawat et al., Zero-Shot Machine Unlearning, 2023, arXiv 2201.05629 (anamnesis index).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data.bounds import SHARE
from data.meanings import CENSORED
from metrics.evidence import Evidence, Needs, Point
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.crossings import durations, first, flag_of

UNITS = ("batches", "epochs")


@dataclass(frozen=True)
class Relearning(Metric):
    """`relearn_batches`, `relearn_epochs` and `anamnesis_index`. `share` is a.

    If the budget ends before, the first two are absent and `relearn_batches_censored` and so on are 1.
    So it is with the index if the model or the retrained one does not get there. Without a forget probe,
    of which the points then hold NaN, there is no score.
    """

    kind: ClassVar[str] = "metrics.relearning.Relearning"
    needs: ClassVar[Needs] = Needs.RELEARN
    parts: ClassVar[tuple[str, ...]] = ()

    share: Annotated[float, SHARE]

    def about(self) -> Mapping[str, Score]:
        says = "training on all rows until the forgotten accuracy is nearly the original's again"
        found = {}
        for unit in UNITS:
            name = f"relearn_{unit}"
            title = f"{unit} of relearning"
            found[name] = Score(
                f"{unit.capitalize()} of {says}.",
                Better.reference,
                unit,
                remembers=-1,
                title=title,
                alone=True,
            )
            found |= flag_of(name, found[name])
        index = "Batches of relearning, divided by the retrained model's."
        title = "relearning, over retrained's"
        found["anamnesis_index"] = Score(index, Better.reference, "ratio", remembers=-1, title=title)
        return found | flag_of("anamnesis_index", found["anamnesis_index"])

    def __call__(self, evidence: Evidence) -> Scores:
        curves = evidence.relearn
        target = (1 - self.share) * curves.start.forget
        if math.isnan(target):
            return {}

        def relearned(curve: Sequence[Point] | None) -> Point | None:
            return first(curve or [], lambda point: point.forget, target)

        own, reference = relearned(curves.own), relearned(curves.reference)
        scores: Scores = {**durations("relearn", UNITS, own, curves.batches_per_epoch)}
        if own is not None and reference is not None:
            # max(1, b_u) / max(1, b_r): a model that knows the rows at once counts as one batch
            scores["anamnesis_index"] = max(1, own.batches) / max(1, reference.batches)
        elif curves.reference is not None:
            scores[f"anamnesis_index{CENSORED}"] = 1.0
        return scores
