"""Loss attack: rows that the model was trained on have a lower loss.

Idea: s = −loss ranks the forgotten training rows against held-out rows of the same kind. A classifier of
the loss, fitted on retained training rows and on test rows of retained kinds, says which of the
forgotten rows it takes for members.

Formula: AUC = P(s⁺ > s⁻) + ½ P(s⁺ = s⁻), with its standard error by DeLong et al. 1988. TPR at FPR α:
the largest share of members of a rule s ≥ t that at most a share α of the others reaches; its interval
is Clopper and Pearson's. Efficacy: 1 − share. The retrained model's values are the target: its AUC is
not ½ where training and test rows differ.

Source: Yeom et al. 2018 (arXiv 1709.01604); low rates, Carlini et al. 2022 (arXiv 2112.03570); efficacy,
Jia et al. 2023 (arXiv 2304.04934), there with a support vector machine: `mia_efficacy_official`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.attacks.report import HeldOutAttack, meanings, report
from metrics.evidence import Evidence
from metrics.metric import Better, Score, Scores
from metrics.statistics.membership import loss_share


@dataclass(frozen=True)
class MiaLoss(HeldOutAttack):
    """`mia_loss_auc`, `_auc_se`, `_tpr_1`, `_tpr_01`, both with `_low` and `_high`, `mia_loss_share` and
    `mia_efficacy`.

    In a request for whole classes the AUC hardly sees that a class is remembered; the shares do.
    """

    kind: ClassVar[str] = "metrics.mia_loss.MiaLoss"

    def about(self) -> Mapping[str, Score]:
        says = "Share of the forgotten training rows that a classifier of the loss calls"
        return {
            **meanings("mia_loss", "the loss"),
            "mia_loss_share": Score(
                f"{says} members.",
                Better.reference,
                remembers=1,
                margin=0.05,
                title="called members by the loss",
            ),
            "mia_efficacy": Score(
                f"{says} non-members.",
                Better.reference,
                remembers=-1,
                margin=0.05,
                title="called non-members by the loss (MIA efficacy)",
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        scores: Scores = {}
        if "train_forget" in predictions.logits:
            # The margin ranks rows as −loss does, and does not round to 0 where p_y is near 1.
            members, others = map(predictions.margins, ("train_forget", predictions.heldout))
            scores |= report("mia_loss", members, others)
        share = loss_share(predictions)
        if share is not None:
            scores |= {"mia_loss_share": share, "mia_efficacy": 1 - share}
        return scores
