"""Entropy attack: on rows that the model was trained on, its predictions are more certain.

Idea: the loss attack without labels, with s = −H and H = −Σ_k p_k ln p_k in nats.

Formula: those of `mia_loss`, with this s. A model that is certain of a wrong class looks like one that
was trained on the row.

Source: Salem et al. 2019 (arXiv 1806.01246, attack 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.attacks.report import HeldOutAttack, meanings, report
from metrics.evidence import Evidence
from metrics.metric import Better, Score, Scores
from metrics.statistics.membership import entropies, entropy_share


@dataclass(frozen=True)
class MiaEntropy(HeldOutAttack):
    """`mia_entropy_auc`, `_auc_se`, `_tpr_1`, `_tpr_01`, both with `_low` and `_high`, and
    `mia_entropy_share`."""

    kind: ClassVar[str] = "metrics.mia_entropy.MiaEntropy"

    def about(self) -> Mapping[str, Score]:
        says = "Share of the forgotten training rows that a classifier of the entropy calls members."
        return {
            **meanings("mia_entropy", "the entropy"),
            "mia_entropy_share": Score(
                says,
                Better.reference,
                remembers=1,
                margin=0.05,
                title="called members by the entropy",
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        scores: Scores = {}
        if "train_forget" in predictions.logits:
            members, others = (
                -entropies(predictions, part) for part in ("train_forget", predictions.heldout)
            )
            scores |= report("mia_entropy", members, others)
        share = entropy_share(predictions)
        if share is not None:
            scores["mia_entropy_share"] = share
        return scores
