"""Uniform labels: teach that every class is equally likely for the forgotten rows.

Idea: a target that says nothing, instead of a loss without bound to climb.
Update rule: each epoch, over D_f: θ ← θ − αβ ∇CE(u, p_θ) with u = 1/K for every class; then over D_r:
θ ← θ − α ∇CE; from θ_o; α is the learning rate, β is `factor`. The forget loss is at least ln K, and
ln K only where p_θ is uniform.
Needs: the forgotten and the retained rows.
Differs from the paper: as dual_phase_ascent. The paper reports that accuracy falls to 0.49 on every
part, at a β 60 times smaller than its ascent's; this update rule gives no reason for that.
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
    kind: ClassVar[str] = "methods.uniform_labels.UniformLabels"

    def forget_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return uniform(logits, batch)


def uniform(logits: Tensor, batch: Batch) -> Tensor:
    """The mean cross-entropy of (B, K) logits with the target 1/K for every class, in nats."""
    return F.cross_entropy(logits, torch.full_like(logits, 1 / logits.shape[1]))
