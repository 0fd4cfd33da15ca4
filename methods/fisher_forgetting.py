"""Fisher forgetting: noise on every weight, the more the less the retained rows need it.

Idea: what no retained row can feel is drowned in noise, and with it what only the forgotten rows
wrote.
Update rule: θᵢ ← θᵢ + √vᵢ·ε with v = α·min(1/(F + 1e-8), cap), F_i = E_{x∈D_r} Σ_y p(y|x)(∂CE(x,
y)/∂θᵢ)²; v is averaged over the inputs (dimension 1) and multiplied by `boost` for one-dimensional
tensors and the last layer, whose cap is `head_cap`. The last layer's rows of classes that are gone are
drawn around 0 with the variance `gone_variance`, times `boost` as well. `alpha` is α.
The root mean square of the noise is logged.
Needs: the retained rows, one gradient per class of each.
Differs from the reference code: the gradients come from factors, whole batches at a time, where that
takes batches of one; the last layer is the last linear layer, and not every tensor whose first
dimension happens to be the number of classes. Which classes are gone is read from the retained labels.
Reference: Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import Access, Method, Problem
from methods.training.checks import at_least_one, zero_or_more
from methods.weights.heads import head_of
from methods.weights.importance import expected_fisher


@dataclass(frozen=True)
class FisherForgetting(Method):
    kind: ClassVar[str] = "methods.fisher_forgetting.FisherForgetting"
    access: ClassVar[Access] = Access.RETAIN
    version: ClassVar[int] = 2  # 1 drowned every weight where the budget let it measure none
    alpha: float
    cap: float
    head_cap: float
    boost: float
    gone_variance: float
    batch_size: int

    def check_parameters(self, option: str) -> None:
        zero_or_more(option, self, "alpha", "cap", "head_cap", "boost", "gone_variance")
        at_least_one(option, self, "batch_size")

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        with torch.enable_grad():
            found = expected_fisher(model, problem.retain, self.batch_size, conditions, problem.classes)
        if not found.count:
            return model  # the budget ended before anything was known of the weights
        _, head = head_of(model, problem.classes)
        gone = torch.ones(problem.classes, dtype=torch.bool)
        gone[problem.retain.labels.unique().cpu()] = False
        rng = conditions.streams("noise")
        total, weights = 0.0, 0
        for name, parameter in model.named_parameters():
            last = any(parameter is own for own in head.parameters())
            variance = self.variance(found.mean(name).to(parameter), last)
            if last:
                parameter[gone] = 0
                variance[gone] = self.gone_variance * self.boost
            noise = torch.randn(parameter.shape, generator=rng).to(parameter.device)
            parameter.addcmul_(variance.sqrt(), noise)
            total += variance.sum().item()
            weights += variance.numel()
        conditions.log({"noise": math.sqrt(total / weights)})
        return model

    def variance(self, fisher: Tensor, last: bool) -> Tensor:
        """v of a parameter, shaped as it; `last` where it is the last layer's."""
        variance = self.alpha * (1 / (fisher + 1e-8)).clamp(max=self.head_cap if last else self.cap)
        if fisher.ndim > 1:
            variance = variance.mean(1, keepdim=True).expand_as(fisher).clone()
        return variance * self.boost if last or fisher.ndim == 1 else variance
