"""Uniform labels: teach that every class is equally likely for the forgotten rows.

Idea: descend to a target without information, instead of climbing a loss without limit.
Update rule: each epoch passes over D_f: θ ← θ − αβ ∇CE(u, p_θ) with u = 1/K for every class. Then it
passes over D_r: θ ← θ − α ∇CE. It starts from θ_o; α is the learning rate and β is `factor`. The forget
loss is at least ln K, and equals ln K only if p_θ is uniform.
Needs: the forgotten and the retained rows.
Differs from the paper: as `dual_phase_ascent`. The paper reports that accuracy falls to 0.49 on every
part, with a β 60 times smaller than its ascent's. This update rule does not explain that.
Reference: paper 003 (Li), "Data Modification": β = 0.005, the rest as its ascent.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from data.split import Batch
from methods.families.two_phases import TwoPhases


@dataclass(frozen=True)
class UniformLabels(TwoPhases):
    """`factor` multiplies the learning rate of the pass over the forgotten rows."""

    kind: ClassVar[str] = "methods.uniform_labels.UniformLabels"

    def forget_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return uniform(logits, batch)


def uniform(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean over rows of −Σ_k (1/K)·log p_k for (B, K) logits, in nats."""
    # CE(u, p_θ) with u = 1/K: the target (B, K) is a distribution and not a label
    return F.cross_entropy(logits, torch.full_like(logits, 1 / logits.shape[1]))
