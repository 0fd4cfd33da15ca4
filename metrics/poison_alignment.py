"""Poison alignment: a test of whether a model still knows the noise in the images that it should forget.

Formula: with t_i = −⟨ξ_i/ε, ∇ₓℓ(x_i)/‖∇ₓℓ(x_i)‖⟩ for the noise ξ_i ~ N(0, ε²) of forgotten row i and its
clean image x_i, `poison_alignment` = Σ t_i/√n. A model that is independent of the noise has
t_i ~ N(0, 1), so that fresh noise needs no draw: the AUC is P(fresh t < t_i) = (1/n) Σ Φ(t_i), and the
true positive rate at a false positive rate of 1 % is (1/n) Σ 1[t_i > Φ⁻¹(0.99)].
Differs from the paper: the sign is that of −∇ℓ, so that more means that the model remembers. The
gradient is that of the margin, which has the same direction and does not vanish for rows of which the
model is sure. Images are bytes, so the poison is rounded and clipped; the test uses ξ before that.
Reference: Pawelczyk et al., Machine Unlearning Fails to Remove Data Poisoning Attacks, ICLR 2025
(Algorithm 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores


@dataclass(frozen=True)
class PoisonAlignment(Metric):
    """`poison_alignment`, 0 ± 1 for a model that is independent of the noise; `poison_alignment_auc`,
    then 0.5 ± 1/√(12n) for n forgotten rows; and `poison_alignment_tpr_1`, then 0.01."""

    kind: ClassVar[str] = "metrics.poison_alignment.PoisonAlignment"
    needs: ClassVar[Needs] = Needs.ALIGNMENT
    parts: ClassVar[tuple[str, ...]] = ()

    def about(self) -> Mapping[str, Score]:
        return {
            "poison_alignment": Score(
                "Alignment of the forgotten rows' noise with the model's gradients, in standard "
                "deviations of a model that is independent of the noise.",
                Better.reference,
                unit="standard deviations",
                remembers=1,
                title="alignment with the noise",
            ),
            "poison_alignment_auc": Score(
                "Probability that a forgotten row's noise is more aligned than fresh noise.",
                Better.reference,
                remembers=1,
                margin=0.03,
                title="noise told from fresh noise (AUC)",
            ),
            "poison_alignment_tpr_1": Score(
                "Share of the forgotten rows whose noise is more aligned than 99 % of fresh noise.",
                Better.reference,
                remembers=1,
                title="noise found at 1 % false alarms",
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        t = evidence.alignment
        normal = torch.distributions.Normal(0.0, 1.0)
        threshold = normal.icdf(torch.tensor(0.99, dtype=torch.float64))
        return {
            # Σ t_i/√n ~ N(0, 1)
            "poison_alignment": (t.sum() / len(t) ** 0.5).item(),
            # (1/n) Σ Φ(t_i)
            "poison_alignment_auc": normal.cdf(t).mean().item(),
            # (1/n) Σ 1[t_i > Φ⁻¹(0.99)]
            "poison_alignment_tpr_1": (t > threshold).double().mean().item(),
        }
