"""Trade-off: one number for the gaps to the retrained model in forgetting, retaining and generalising.

Formulas, with Δ = |value of the model − value of the paired retrained one| and accuracies as shares:
average_gap = ¼ Σ Δ of the accuracies on train_forget, train_retain and test, and of mia_efficacy;
delta_accuracy = the sum of the three accuracies' Δ; tow = Π (1 − Δ) over the three accuracies; tow_mia =
the same with mia_efficacy for the accuracy on train_forget.
mia_efficacy is the share of train_forget that a logistic regression on the loss calls non-members.
Sources: Fan et al., SalUn, ICLR 2024, arXiv 2310.12508 (average gap); Zhao et al., What Makes Unlearning
Hard and What to Do About It, NeurIPS 2024, arXiv 2406.01257 (tug of war, ToW and ToW-MIA).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.gaps import accuracy_gap, share_gap
from metrics.statistics.membership import loss_share


@dataclass(frozen=True)
class TradeOff(Metric):
    """`average_gap`, `tow` and `tow_mia` from 0 to 1, and `delta_accuracy` from 0 to 3.

    The paired retrained model has gap 0 and tow 1 by construction.
    Without the training rows all are absent. Without retained test rows, those with `mia_efficacy` are.
    """

    kind: ClassVar[str] = "metrics.trade_off.TradeOff"
    needs: ClassVar[Needs] = Needs.PREDICTIONS | Needs.REFERENCE
    parts: ClassVar[tuple[str, ...]] = ("train_forget", "train_retain", "test")

    def about(self) -> Mapping[str, Score]:
        gaps = "gaps to the retrained model in train forget, train retain and test accuracy"
        return {
            "average_gap": Score(
                f"Mean of the {gaps}, and in MIA efficacy.",
                Better.lower,
                title="average gap to retrained",
            ),
            "delta_accuracy": Score(
                f"Sum of the {gaps}.",
                Better.lower,
                "shares",
                title="sum of the accuracy gaps to retrained",
            ),
            "tow": Score(
                f"Tug of war: product of one minus each of the {gaps}.",
                Better.higher,
                margin=0.02,
                title="tug of war",
            ),
            "tow_mia": Score(
                "Tug of war with the gap in MIA efficacy for the one in train forget accuracy.",
                Better.higher,
                margin=0.02,
                title="tug of war with MIA efficacy",
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        own, reference = evidence.predictions, evidence.reference
        if self.present(own) != list(self.parts):
            return {}
        forget, retain, test = (accuracy_gap(own, reference, part) for part in self.parts)
        scores: Scores = {
            "delta_accuracy": forget + retain + test,
            "tow": (1 - forget) * (1 - retain) * (1 - test),
        }
        # mia_efficacy is 1 − the share of members, so that its gap is the share's
        efficacy = share_gap(loss_share, own, reference)
        if efficacy is not None:
            scores["average_gap"] = (forget + retain + test + efficacy) / 4
            scores["tow_mia"] = (1 - efficacy) * (1 - retain) * (1 - test)
        return scores
