"""LiRA on unlearned models: what an attacker who does not know of the unlearning learns of each row.

Idea: that of `ulira`, with shadow models that have not forgotten. For each row of the request, half of
them were trained on it (IN) and half were not (OUT). The attacker fits both kinds, and asks of each row
which kind the unlearned target is. It shows what is left of a membership that an ordinary attack finds;
`ulira` also finds the traces of the forgetting itself.

Formula: with φ of the unlearned model of shadow j, the score of a row is

    ln N(φ_j; μ_in, σ_in) − ln N(φ_j; μ_out, σ_out),

with means and variances over the shadows' originals, and otherwise as in `ulira`. The pair of the target
is left out.

Source: Carlini et al., "Membership Inference Attacks From First Principles", arXiv 2112.03570.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from metrics.attacks.report import audit_meanings
from metrics.evidence import Evidence, Needs
from metrics.metric import Metric, Score, Scores
from metrics.statistics.likelihood_ratio import attack_scores, likelihood_ratios
from metrics.statistics.populations import margins_of


@dataclass(frozen=True)
class Lira(Metric):
    """`lira_auc` (one value per target), `lira_tpr_1` and `lira_tpr_01`."""

    kind: ClassVar[str] = "metrics.lira.Lira"
    needs: ClassVar[Needs] = Needs.SHADOWS
    parts: ClassVar[tuple[str, ...]] = ("train_forget",)

    def about(self) -> Mapping[str, Score]:
        auc = "Chance that an attack unaware of the unlearning ranks forgotten rows above unseen ones."
        rate = "Share of the forgotten rows that such an attack finds at {} % of false alarms."
        return audit_meanings("lira", "LiRA", auc, rate)

    def __call__(self, evidence: Evidence) -> Scores:
        shadows = evidence.shadows
        targets, originals = margins_of(shadows.unlearned), margins_of(shadows.originals)
        if not np.isfinite([targets, originals]).all():  # a model diverged
            return {}
        forgot = shadows.forgot.numpy()
        found = likelihood_ratios(targets, originals, forgot)
        return {f"lira_{name}": values for name, values in attack_scores(found, forgot).items()}
