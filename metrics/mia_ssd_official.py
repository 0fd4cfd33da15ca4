"""The attack of SSD's code: the share of the forgotten training rows that a logistic regression on the
entropy calls members.

It reproduces published numbers and belongs in no other comparison. Retrained models of one request
differ widely in it.

Formula: entropy of a softmax in float32; balanced logistic regression, fitted on the retained training
rows (1) and the whole test set (0), which holds the forgotten classes. The code asks for the multinomial
form, which gives each of the two sides a weight vector and shrinks both. C = 2 in the binary form, with
one vector w, has the same solution: w₁ = −w₀ = w/2 makes the penalty ½(‖w₀‖² + ‖w₁‖²) = ¼‖w‖², half of
the binary form's, and half of a penalty is twice the C.

Source: Foster et al. 2024 (arXiv 2308.07707), `metrics.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.membership import official_entropy_share


@dataclass(frozen=True)
class MiaSSDOfficial(Metric):
    """`mia_ssd_official`, from 0 to 1."""

    kind: ClassVar[str] = "metrics.mia_ssd_official.MiaSSDOfficial"

    def about(self) -> Mapping[str, Score]:
        says = "Share of the forgotten training rows that the attack of SSD's code calls members."
        title = "forgotten rows that SSD's code calls members"
        return {"mia_ssd_official": Score(says, Better.reference, title=title)}

    def __call__(self, evidence: Evidence) -> Scores:
        from sklearn.linear_model import LogisticRegression

        # C = 1 of two weight vectors is C = 2 of one
        attack = LogisticRegression(C=2, class_weight="balanced")
        share = official_entropy_share(evidence.predictions, attack)
        return {} if share is None else {"mia_ssd_official": share}
