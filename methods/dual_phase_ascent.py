"""Dual-phase ascent: every epoch, climb the loss of the forgotten rows, then descend that of the rest.

Idea: gradient ascent destroys; a pass over the retained rows after each pass of it repairs at once.
Update rule: each epoch, over D_f: θ ← θ + αβ ∇CE; then over D_r: θ ← θ − α ∇CE; from θ_o; α is
the learning rate, β is `factor`.
Needs: the forgotten and the retained rows.
Differs from the paper: it leaves open whether the momentum is shared between the phases
(`shared_momentum`) and names no weight decay (none here).
Reference: paper 003 (Li), "Gradient Ascent": 45 epochs, α = 0.01, 0.001 from epoch 20, β = 0.3.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from data.split import Batch
from methods.families.two_phases import TwoPhases
from methods.training.loop import cross_entropy


@dataclass(frozen=True)
class DualPhaseAscent(TwoPhases):
    kind: ClassVar[str] = "methods.dual_phase_ascent.DualPhaseAscent"

    def forget_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Negative cross-entropy: descending it climbs the loss."""
        return -cross_entropy(logits, batch)
