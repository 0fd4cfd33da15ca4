"""U-LiRA: what an attacker who knows the method and trains shadow models learns of each forgotten row.

Idea: N shadow models are each trained on the retained rows and a half of the rows to forget, and the
method makes them forget that half. For each row of the request, half of the models have forgotten it
(IN), and half have never seen it (OUT). The attacker takes every model in turn as the target, fits both
kinds on the others, and asks of each row which kind the target is. Retraining leaves nothing to find: ½.

Formula: with φ = z_y − logsumexp_{j≠y} z_j of target j, the score of a row is

    ln N(φ_j; μ_in, σ_in) − ln N(φ_j; μ_out, σ_out).

The means are those of the row over the other pairs, of k = N/2 − 1 models each. The variances are
Σ (φ − μ)² / (T (k − 1)) over the T rows, at least 1e-12. `ulira_auc` is the AUC of each target. The
rates at 1 % and 0.1 % false positives pool the scores of all targets.

The whole pair of the target is left out, because without the target alone its side would be one model
short, which biases the AUC. Variances are pooled, because those of single rows need some 32 models.
There are two, because forgetting may change the spread alone. Known case: for normal margins shifted by
δσ, the AUC tends to Φ(δ/√2) with N. For δ = 1, 16 models give 0.73 of 0.76.

Source: Hayes et al., "Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of
Privacy", arXiv 2403.01218; the attack is that of Carlini et al., arXiv 2112.03570.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from metrics.attacks.report import audit_meanings
from metrics.evidence import Evidence, Needs, Shadows
from metrics.metric import Better, Matrix, Metric, Score, Scores
from metrics.statistics.likelihood_ratio import (
    attack_scores,
    likelihood_ratios,
    mean_forgotten_scores,
)
from metrics.statistics.populations import margins_of

LISTED = 20  # leaking rows


@dataclass(frozen=True)
class ULira(Metric):
    """`ulira_auc` (one value per target), `ulira_tpr_1`, `ulira_tpr_01`, and two matrices of rows.

    `ulira_rows` is (T, 2): row number, and mean score over the targets that forgot the row.
    `leaking_rows` is (20, 3): row number, label and mean score of the rows with the largest ones.
    """

    kind: ClassVar[str] = "metrics.ulira.ULira"
    needs: ClassVar[Needs] = Needs.SHADOWS
    parts: ClassVar[tuple[str, ...]] = ("train_forget",)

    def about(self) -> Mapping[str, Score]:
        auc = "Chance that the attack ranks a row that the model forgot above one that it never saw."
        rate = "Share of the forgotten rows that the attack finds at {} % of false alarms."
        each = "Score that the attack gives each row: row number, mean over the models that forgot it."
        rows = "The rows that the attack finds most surely: row number, label, mean score in nats."
        return {
            **audit_meanings("ulira", "U-LiRA", auc, rate),
            "ulira_rows": Score(
                each, Better.reference, "nats", remembers=1, title="U-LiRA score of each row"
            ),
            "leaking_rows": Score(
                rows, Better.reference, "nats", remembers=1, title="rows that leak most"
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        shadows = evidence.shadows
        margins, forgot = margins_of(shadows.unlearned), shadows.forgot.numpy()
        if not np.isfinite(margins).all():  # a model diverged
            return {}
        found = likelihood_ratios(margins, margins, forgot)
        scores: Scores = {
            f"ulira_{name}": values for name, values in attack_scores(found, forgot).items()
        }
        means = mean_forgotten_scores(found, forgot)
        scores["ulira_rows"] = np.column_stack([shadows.rows.numpy(), means]).tolist()
        scores["leaking_rows"] = _leaking(shadows, means)
        return scores


def _leaking(shadows: Shadows, means: NDArray[np.float64]) -> Matrix:
    """Return row number, label and mean score of the rows with the largest scores, largest first."""
    labels = shadows.unlearned[0].labels["train_forget"]
    # of equal scores, the first row
    largest = np.argsort(-means, kind="stable")[:LISTED]
    return [[int(shadows.rows[t]), int(labels[t]), float(means[t])] for t in largest]
