"""The attack of Bad Teacher's code: the share of the forgotten training rows that a support vector
machine on the entropy calls members.

It reproduces published numbers and belongs in no other comparison. The codes of Golatkar et al. 2020 and
of Chundawat et al. 2023 on zero-shot unlearning have the same attack.

Formula: entropy of a softmax in float32; support vector machine, C = 3, radial kernel with γ = 1, fitted
on the retained training rows (1) and the whole test set (0), without balance. Time is quadratic in the
rows: minutes for CIFAR-10.

Source: Chundawat et al. 2023 (arXiv 2205.08096), `metrics.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.membership import official_entropy_share


@dataclass(frozen=True)
class MiaBadTeacherOfficial(Metric):
    """`mia_bad_teacher_official`, from 0 to 1."""

    kind: ClassVar[str] = "metrics.mia_bad_teacher_official.MiaBadTeacherOfficial"

    def about(self) -> Mapping[str, Score]:
        says = (
            "Share of the forgotten training rows that the attack of Bad Teacher's code calls members."
        )
        title = "forgotten rows that Bad Teacher's code calls members"
        return {"mia_bad_teacher_official": Score(says, Better.reference, title=title)}

    def __call__(self, evidence: Evidence) -> Scores:
        from sklearn.svm import SVC

        attack = SVC(C=3, kernel="rbf", gamma="auto")  # auto: γ = 1 / number of features
        share = official_entropy_share(evidence.predictions, attack)
        return {} if share is None else {"mia_bad_teacher_official": share}
