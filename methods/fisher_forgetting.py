"""Fisher forgetting: add noise to every weight, more to weights that the retained rows need less.

Idea: noise on the weights that matter to no retained row hides what only the forgotten rows wrote.
Update rule: θᵢ ← θᵢ + √vᵢ·ε with ε ~ N(0, 1), v = α·min(1/(F + 1e-8), cap) and F_i = E_{x∈D_r} Σ_y
p(y|x)(∂CE(x, y)/∂θᵢ)². v is averaged over the inputs (dimension 1). For one-dimensional tensors and the
last layer it is multiplied by `boost`; the last layer's cap is `head_cap`. The last layer's weights of
the classes that are gone are drawn around 0 with the variance `gone_variance`, also times `boost`.
`alpha` is α. The root mean square of the noise is logged.
Needs: the retained rows, and one gradient per class of each.
Differs from the reference code: the gradients come from factors, a whole batch at a time; that code
works row by row. The last layer is the last linear layer; there it is every tensor whose first
dimension is the number of classes. A class is gone if no retained row has its label.
Reference: Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from data.bounds import COUNT, STRENGTH
from methods.base import Access, Method, Problem
from methods.weights.heads import head_of
from methods.weights.importance import expected_fisher


@dataclass(frozen=True)
class FisherForgetting(Method):
    kind: ClassVar[str] = "methods.fisher_forgetting.FisherForgetting"
    access: ClassVar[Access] = Access.RETAIN
    version: ClassVar[int] = 2  # 1 drowned every weight if the budget ended before the measurement
    logs: ClassVar[tuple[str, ...]] = ("noise",)
    alpha: Annotated[float, STRENGTH]
    cap: Annotated[float, STRENGTH]
    head_cap: Annotated[float, STRENGTH]
    boost: Annotated[float, STRENGTH]
    gone_variance: Annotated[float, STRENGTH]
    batch_size: Annotated[int, COUNT]

    def idle(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if self.alpha == 0:
            found |= dict.fromkeys(("cap", "head_cap"), "alpha=0 multiplies it")
        if self.boost == 0:
            found |= dict.fromkeys(("head_cap", "gone_variance"), "boost=0 multiplies it")
        return found

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model, problem.conditions
        with torch.enable_grad():
            found = expected_fisher(model, problem.retain, self.batch_size, conditions, problem.classes)
        if not found.count:
            return model  # the budget ended before the first batch
        _, head = head_of(model, problem.classes)
        gone = problem.gone
        rng = conditions.streams("noise")
        total, weights = 0.0, 0
        for name, parameter in model.named_parameters():
            last = any(parameter is own for own in head.parameters())
            variance = self.variance(found.mean(name).to(parameter), last)
            if last:
                # w_k ~ N(0, boost·gone_variance) for a class k that is gone
                parameter[gone] = 0
                variance[gone] = self.gone_variance * self.boost
            # θ ← θ + √v·ε
            noise = torch.randn(parameter.shape, generator=rng).to(parameter.device)
            parameter.addcmul_(variance.sqrt(), noise)
            # E[(√v·ε)²] = v, so the root mean square of the noise is √(Σ v / M)
            total += variance.sum().item()
            weights += variance.numel()
        conditions.log({"noise": math.sqrt(total / weights)})
        return model

    def variance(self, fisher: Tensor, last: bool) -> Tensor:
        """Return v of a parameter, in its shape, from its F; `last` is true for the last layer."""
        # v = α·min(1/(F + 1e-8), cap)
        variance = self.alpha * (1 / (fisher + 1e-8)).clamp(max=self.head_cap if last else self.cap)
        # one v for all inputs of an output: the mean over dimension 1 of (out, in, …)
        if fisher.ndim > 1:
            variance = variance.mean(1, keepdim=True).expand_as(fisher).clone()
        return variance * self.boost if last or fisher.ndim == 1 else variance
