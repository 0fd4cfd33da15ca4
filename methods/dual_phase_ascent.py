"""Dual-phase ascent: in each epoch, climb the forgotten rows' loss, then descend the retained rows'.

Idea: gradient ascent damages the model; a pass over the retained rows after each ascent repairs it.
Update rule: in each epoch, θ ← θ + αβ ∇CE over D_f, then θ ← θ − α ∇CE over D_r, from θ_o. α is the
learning rate, β is `factor`.
Needs: the forgotten and the retained rows.
Differs from the paper: it does not say whether the phases share their momentum (`shared_momentum`), and
names no weight decay (here 0).
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
    climbs: ClassVar[bool] = True

    def forget_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return CE, the mean over the batch."""
        return cross_entropy(logits, batch)  # θ ← θ + αβ ∇CE
