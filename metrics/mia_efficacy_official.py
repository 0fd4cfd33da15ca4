"""The attack of SalUn's code: the share of the forgotten training rows that a support vector machine on
p_y calls non-members.

It reproduces published numbers and belongs in no other comparison. High means forgotten. RUM's code has
the same attack and shuffles the retained rows first.

Formula: support vector machine, C = 3, radial kernel with γ = 1, on p_y, fitted on the first |T|
retained training rows (1) and on T (0), the test rows without forgotten classes. There is none if fewer
than |T| rows are retained. Time is quadratic in |T|: some seconds for 10,000 rows.

Source: Fan et al. 2024 (arXiv 2310.12508), `evaluation/SVC_MIA.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.membership import svc_share


@dataclass(frozen=True)
class MiaEfficacyOfficial(Metric):
    """`mia_efficacy_official`, from 0 to 1."""

    kind: ClassVar[str] = "metrics.mia_efficacy_official.MiaEfficacyOfficial"

    def about(self) -> Mapping[str, Score]:
        says = "Share of the forgotten training rows that the attack of SalUn's code calls non-members."
        title = "forgotten rows that SalUn's code calls non-members"
        return {"mia_efficacy_official": Score(says, Better.reference, title=title)}

    def __call__(self, evidence: Evidence) -> Scores:
        share = svc_share(evidence.predictions)
        return {} if share is None else {"mia_efficacy_official": share}
