"""Influence: one Newton step from the optimum of all rows towards that of the retained rows.

Idea: a forgotten row has moved the optimum by its gradient, divided by the curvature.
Update rule: θ_u = θ_o + α·(λI + F)⁻¹(ḡ_f − ḡ_r). ḡ_f and ḡ_r are the mean gradients of CE over D_f and
D_r. F = 1/S Σ gᵢgᵢᵀ is the empirical Fisher information of `samples` retained rows, drawn at random (of
all, if there are fewer). `strength` is α and `damping` is λ. α = |D_f|/|D| is the Newton step if F is
the Hessian and θ_o an optimum; the authors search α between 1 and 20. Conjugate gradients solve for
the step in at most `rounds` products with F, or until the residual is `tolerance`; the residual is
logged.
Needs: the forgotten and the retained rows.
Differs from the reference code: its recursion for the inverse keeps a single vector, which stays a
multiple of the first row's gradient; so its step is ḡ_f − ḡ_r plus a multiple of that gradient, whatever
the other rows are. The Woodbury recursion that it stands for (WoodFisher) keeps S vectors as large as
the model. Here the result of that recursion is found to `tolerance`, and none is kept. A damping of 1 is
what that code begins with. Gradients are taken in evaluation mode, without augmentation.
Reference: Jia et al., Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023 (their baseline IU);
Singh & Alistarh, WoodFisher, NeurIPS 2020.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from data.bounds import COUNT, POSITIVE, POSITIVE_SHARE, ROUNDS, STRENGTH
from data.split import Split
from methods.base import Access, Method, Problem
from methods.training.loop import Conditions
from methods.weights.curvature import fisher_product, solved
from models.precision import autocast


@dataclass(frozen=True)
class Influence(Method):
    kind: ClassVar[str] = "methods.influence.Influence"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("residual",)
    strength: Annotated[float, STRENGTH]
    damping: Annotated[float, POSITIVE]
    samples: Annotated[int, COUNT]
    rounds: Annotated[int, ROUNDS]
    tolerance: Annotated[float, POSITIVE_SHARE]
    batch_size: Annotated[int, COUNT]

    def unlearn(self, problem: Problem) -> nn.Module:
        model, conditions = problem.model.eval(), problem.conditions
        # ḡ_f − ḡ_r (M,)
        forget = self.mean_gradient(model, problem.forget, conditions)
        towards = forget - self.mean_gradient(model, problem.retain, conditions)
        # the retained rows that F is measured on
        rows = problem.retain.drawn(conditions.streams("samples"), self.samples)

        def product(vector: Tensor) -> Tensor:
            # (λI + F)v = λv + 1/S Σ gᵢ(gᵢᵀv)
            total = self.damping * vector
            for batch in conditions.meter.ordered_batches(rows, self.batch_size):
                total = total + fisher_product(model, batch, vector) / len(rows)
            return total

        step, residual = solved(product, towards, self.rounds, self.tolerance)
        if conditions.meter.cut:
            return model  # the budget ended before the step was known
        conditions.log({"residual": residual})
        with torch.no_grad():
            # θ_u = θ_o + α·(λI + F)⁻¹(ḡ_f − ḡ_r)
            weights = parameters_to_vector(model.parameters())
            vector_to_parameters(weights + self.strength * step.to(weights), model.parameters())
        return model

    def mean_gradient(self, model: nn.Module, split: Split, conditions: Conditions) -> Tensor:
        """Return the mean gradient (M,) of CE over the rows, in float64."""
        parameters = list(model.parameters())
        total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
        total = total.to(parameters[0].device)
        for batch in conditions.meter.ordered_batches(split, self.batch_size):
            with autocast(conditions.bf16, batch.images.device):
                logits = model(batch.images).float()
            # Σ ∂CE/∂θ over the batch
            loss = F.cross_entropy(logits, batch.labels, reduction="sum")
            gradients = torch.autograd.grad(loss, parameters)
            total += torch.cat([gradient.flatten() for gradient in gradients])
        return total / len(split)
