"""Hessian-free: add the change that the weights would show without the forgotten rows.

Idea: what a row has done to the weights is carried along the training; forgetting is an addition.
Update rule: θ_u = θ_o + Σ_{i ∈ D_f} a_i + N(0, σ²I), with a_i ≈ θ_{−i} − θ_o from the record.
Needs: a record of leave-one-out vectors (`recorder=[leave_one_out]`) and no data.
Certificate: none and σ = 0, unless `error` is given, a bound on ‖θ_o + Σ a_i − θ_{−D_f}‖, where θ_{−D_f}
ends the same batches without the gradients of D_f. Then σ is the smallest that proves (`epsilon`,
`delta`)-unlearning for two results at most `error` apart. The bound is an assumption: the sum is right
to first order in the forgotten rows, and its error is not known for a network. It can be useless for a
whole class.
Differs from the paper: it derives `error` from constants of the loss (smoothness, a bound on gradients,
the largest eigenvalue of the Hessian), which no network of this project has.
Reference: Qiao et al., Hessian-Free Online Certified Unlearning, ICLR 2025.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from data.bounds import INSIDE_SHARE, POSITIVE
from methods.base import Access, Method, Problem
from methods.recording.leave_one_out import LeaveOneOut, change_without
from methods.recording.recorder import Recorder
from methods.weights.certificate import CERTIFICATE, EPSILON, add_noise, certify, deviation_for


@dataclass(frozen=True)
class HessianFree(Method):
    """`error` is a distance of weights, or null for no noise and no certificate."""

    kind: ClassVar[str] = "methods.hessian_free.HessianFree"
    access: ClassVar[Access] = Access.NOTHING
    records: ClassVar[type[Recorder] | None] = LeaveOneOut
    logs: ClassVar[tuple[str, ...]] = CERTIFICATE
    epsilon: Annotated[float, EPSILON]
    delta: Annotated[float, INSIDE_SHARE]
    error: Annotated[float, POSITIVE] | None

    def idle(self) -> Mapping[str, str]:
        if self.error is not None:
            return {}
        reason = "error=null certifies nothing"
        return dict.fromkeys(("epsilon", "delta"), reason)

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        weights = parameters_to_vector(model.parameters())  # θ_o (M,)
        change = change_without(problem.recording, problem.forget_rows).to(weights.device)
        # θ_u = θ_o + Σ a_i
        vector_to_parameters(weights + change, model.parameters())
        if self.error is not None:
            deviation = deviation_for(self.epsilon, self.delta, self.error)
            add_noise(model, deviation, conditions.streams("noise"))
            claim = (
                "against the same batches without the forgotten rows' gradients, if the sum is within "
                f"{self.error:g} of their result"
            )
            certify(self.epsilon, self.delta, deviation, claim, conditions.log)
        return model
