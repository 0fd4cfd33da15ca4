"""NegGrad+: climb the loss of the forgotten rows while descending that of the rest, in every step.

Idea: gradient ascent held in check by rehearsal.
Update rule: θ ← θ − η ∇[a·(CE(B_r) + (λ/2)‖θ − θ_o‖²) − (1 − a)·CE(B_f)], from θ_o. B_r runs through
D_r and B_f through D_f again and again; `retain_weight` is a and `penalty` is λ.
Needs: the forgotten and the retained rows; θ_o stays in memory if λ > 0.
Differs from the reference code: the climbed loss has no upper limit and can destroy a small network
within a few hundred steps, so the gradient's norm is clipped. `clip=null` restores the code's rule.
Momentum, weight decay, evaluation mode, a and λ are the code's by default. Both batches have
`batch_size` rows (the notebook's have 128 of D_r and 64 of D_f), and the data set's augmentation
applies (the notebook has none). The logged loss is CE(B_r), as in the code.
Reference: Kurmanji et al., Towards Unbounded Machine Unlearning, NeurIPS 2023 (baseline "NegGrad+");
its code, small_scale_unlearning.ipynb, `run_neggrad_epoch`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import SHARE, STRENGTH
from methods.base import Access, Method, Problem
from methods.training.cost import pass_streams
from methods.training.descent import Descent
from methods.training.loop import curves, train
from models.precision import autocast


@dataclass(frozen=True)
class NegativeGradientPlus(Descent, Method):
    """`retain_weight` is a, from 0 to 1, and `penalty` is λ; `evaluation_mode` switches off dropout and
    keeps the running statistics of BatchNorm."""

    kind: ClassVar[str] = "methods.negative_gradient_plus.NegativeGradientPlus"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    retain_weight: Annotated[float, SHARE]
    penalty: Annotated[float, STRENGTH]
    evaluation_mode: bool

    def identity(self) -> dict[str, Any]:
        """Return all fields but a `penalty` of 0 and a false `evaluation_mode`, which change nothing:
        results from before these fields stay valid."""
        identity = super().identity()
        if self.penalty == 0:
            del identity["penalty"]
        if not self.evaluation_mode:
            del identity["evaluation_mode"]
        return identity

    def idle(self) -> Mapping[str, str]:
        if self.retain_weight > 0:
            return super().idle()
        return {**super().idle(), "penalty": "retain_weight=0 multiplies it"}

    def set_mode(self, model: nn.Module) -> None:
        model.train(not self.evaluation_mode)

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        start = [value.detach().clone() for value in model.parameters()] if self.penalty else []
        # leaves ∇CE(B_r) in the parameters' gradients at every step
        steps = train(model, problem.retain, self, conditions)
        streams = pass_streams(conditions.streams.part("forget"))
        forgotten = conditions.meter.endless_batches(problem.forget, self.batch_size, streams)
        for _, batch in zip(curves(steps, conditions.log), forgotten, strict=False):
            self.weigh_retained(model, start)
            with autocast(conditions.bf16, batch.images.device):
                logits = model(batch.images).float()
            # adds ∇[−(1 − a)·CE(B_f)]
            (-(1 - self.retain_weight) * F.cross_entropy(logits, batch.labels)).backward()
        return model

    @torch.no_grad()
    def weigh_retained(self, model: nn.Module, start: list[Tensor]) -> None:
        """Turn the gradient g of CE(B_r) into a·(g + λ(θ − θ_o)), in place; `start` is θ_o if λ > 0."""
        gradients = [parameter.grad for parameter in model.parameters()]
        if start:
            for gradient, parameter, old in zip(gradients, model.parameters(), start, strict=True):
                if gradient is not None:
                    # g + λ(θ − θ_o), the gradient of CE + (λ/2)‖θ − θ_o‖²
                    gradient.add_(parameter - old, alpha=self.penalty)
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(self.retain_weight)
