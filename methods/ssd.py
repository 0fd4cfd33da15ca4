"""SSD: dampen the weights that matter to the forgotten rows far more than to all rows.

Idea: find by Fisher information where the forgotten rows are stored, and shrink that.
Update rule: θᵢ ← βᵢθᵢ where I_f,i > α·I_D,i, with βᵢ = min(λ·I_D,i / I_f,i, 1); I_S,i is the mean over
S of (∂ ln p(y|x)/∂θᵢ)². `alpha` is α, `dampening` λ. No training step is taken.
Needs: the forgotten and the retained rows, one gradient of each.
Differs from the reference code: that squares the mean gradient of a batch (`fisher: batch` does, too),
so that its α depends on the batch size and the order of the rows; `fisher: per_sample` squares each
row's, as the paper has it, and depends on neither. In batches, the rows to forget have batches of
their own and the rest goes class by class, as in that code's requests for a class; no batch mixes the
two parts. Since D holds D_f, I_f ≤ (|D|/|D_f|)·I_D: where α is not below |D|/|D_f| (10 for a class of
ten) nothing can be selected, and a warning says so before the run.
Reference: Foster et al., Fast Machine Unlearning Without Retraining Through Selective Synaptic
Dampening, AAAI 2024.
"""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from torch import nn

from methods.base import Access, Facts, Method, Problem
from methods.families.dampening import dampen, measured, warn_where_nothing_can_be_selected
from methods.training.checks import at_least_one, zero_or_more
from methods.weights.importance import batch_fisher, per_sample_fisher


class Fisher(Enum):
    """What is squared: each row's gradient, or a batch's mean gradient."""

    per_sample = "per_sample"
    batch = "batch"


_MEASURES = {Fisher.per_sample: per_sample_fisher, Fisher.batch: batch_fisher}


@dataclass(frozen=True)
class SSD(Method):
    kind: ClassVar[str] = "methods.ssd.SSD"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    alpha: float
    dampening: float
    fisher: Fisher
    batch_size: int

    def check_parameters(self, option: str) -> None:
        zero_or_more(option, self, "alpha", "dampening")
        at_least_one(option, self, "batch_size")

    def check(self, facts: Facts) -> None:
        size = self.batch_size if self.fisher is Fisher.batch else None
        warn_where_nothing_can_be_selected(self.alpha, facts, size)

    def unlearn(self, problem: Problem) -> nn.Module:
        forget, everything = measured(problem, _MEASURES[self.fisher], self.batch_size)
        selected = dampen(problem.model, forget, everything, self.alpha, self.dampening)
        problem.conditions.log({"selected": selected})
        return problem.model
