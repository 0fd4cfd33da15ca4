"""Trade-off as published code computes it: average_gap_official and tow_mia_official.

Formulas, with Δ = |value of the model − value of the paired retrained one|: average_gap_official = ¼ Σ Δ
of the accuracies on train_forget, train_retain and test_retain, and of mia_efficacy_official;
tow_mia_official = Π (1 − Δ) over the last three.
Differs from the definitions: the attack is a support vector machine on p_y. The test rows leave out the
forgotten classes, because that code takes these out of its test set.
Sources: the code of SalUn (evaluation/SVC_MIA.py, dataset.py) and of RUM, which uses both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.gaps import accuracy_gap, share_gap
from metrics.statistics.membership import svc_share


@dataclass(frozen=True)
class TradeOffOfficial(Metric):
    """`average_gap_official` and `tow_mia_official`, from 0 to 1.

    Absent without the training rows, or with fewer retained training rows than retained test rows. The
    attack takes about ten seconds a model for 10,000 test rows.
    """

    kind: ClassVar[str] = "metrics.trade_off_official.TradeOffOfficial"
    needs: ClassVar[Needs] = Needs.PREDICTIONS | Needs.REFERENCE
    parts: ClassVar[tuple[str, ...]] = ("train_forget", "train_retain", "test_retain")

    def about(self) -> Mapping[str, Score]:
        return {
            "average_gap_official": Score(
                "Mean of the gaps to the retrained model in train forget, train retain and test retain "
                "accuracy, and in MIA efficacy, as published code computes it.",
                Better.lower,
                title="average gap, as published code has it",
            ),
            "tow_mia_official": Score(
                "Tug of war of the gaps in MIA efficacy, train retain and test retain accuracy, as "
                "published code computes it.",
                Better.higher,
                title="tug of war with MIA, as published code has it",
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        own, reference = evidence.predictions, evidence.reference
        # the gap of the non-members' share, None if a part is missing
        efficacy = share_gap(svc_share, own, reference)
        if efficacy is None:
            return {}
        forget, retain, test = (accuracy_gap(own, reference, part) for part in self.parts)
        return {
            "average_gap_official": (forget + retain + test + efficacy) / 4,
            "tow_mia_official": (1 - efficacy) * (1 - retain) * (1 - test),
        }
