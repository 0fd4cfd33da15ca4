"""Selective fine-tuning: turn one class into another by moving only the weights that tell it.

Idea: few weights of the last layers decide for a class; train these and freeze the rest.
Update rule: θ ← θ − η ∇[CE(relabelled rows) + λ·E f_s(x)²] on the free coordinates, f_s the logit of
the class that goes; `penalty` is λ. `importance: gradient`: free are the `share` of the last layer's
row s with the highest |∂CE(D_f)/∂w|, and all of the target's row. `importance: weight`: the `share` of
the hidden units with the highest |w_s| matter; free are these units' rows in the linear layer before
the last one, and the last layer's rows of both classes, all with biases.
Needs: a request to relabel, with the relabelled rows and, for the gradient, the forgotten ones.
Differs from the paper/reference code: the paper says gradient, its code does weight; both are here.
Frozen coordinates keep every bit, where masked gradients would let weight decay and momentum move
them. The original is trained on all classes, as the paper says (the code's never saw the target). 32
units of 128 became a share, so that any model is served; where no linear layer feeds the last one (a
ResNet), `weight` trains the last layer's rows alone.
Reference: paper 000 (Nuralin and Bakridenov, Machine Unlearning, 2025), section 3.1.
"""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import above_zero_to_one, batch_fits, zero_or_more
from methods.training.descent import Descent
from methods.training.loop import curves, train
from methods.weights.heads import head_of, hidden_of
from methods.weights.masks import only
from models.precision import autocast


class Criterion(Enum):
    """What tells which weights matter: the paper's `gradient`, or its code's `weight`."""

    gradient = "gradient"
    weight = "weight"


@dataclass(frozen=True)
class SelectiveFinetune(Descent, Method):
    kind: ClassVar[str] = "methods.selective_finetune.SelectiveFinetune"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    importance: Criterion
    share: float
    penalty: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero_to_one(option, self, "share")
        zero_or_more(option, self, "penalty")

    def check(self, facts: Facts) -> None:
        require_relabelling(facts)
        batch_fits("method", self, facts.retain, "the training set")

    def unlearn(self, problem: Problem) -> nn.Module:
        source, _ = classes_of(problem)

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels) + self.penalty * logits[:, source].square().mean()

        masks = masks_of(problem, self.importance, self.share, self.batch_size)
        with only(problem.model, masks):
            steps = train(problem.model, problem.retain, self, problem.conditions, loss)
            for _ in curves(steps, problem.conditions.log):
                pass
        return problem.model


def require_relabelling(facts: Facts) -> None:
    """Raises UserError where no class is to become another."""
    if not facts.relabels:
        raise UserError("this method makes one class another: choose scenario=relabel")


def classes_of(problem: Problem) -> tuple[int, int]:
    """The class that goes and the class that it becomes."""
    (source,) = problem.forget.labels.unique().tolist()
    (target,) = problem.retain.only(problem.forget.rows).labels.unique().tolist()
    return source, target


def masks_of(
    problem: Problem, importance: Criterion, share: float, batch_size: int
) -> dict[str, Tensor]:
    """Which coordinates may move, true, by parameter name."""
    return _MASKS[importance](problem, share, batch_size)


def _by_gradient(problem: Problem, share: float, batch_size: int) -> dict[str, Tensor]:
    name, head = head_of(problem.model, problem.classes)
    source, target = classes_of(problem)
    free = torch.zeros_like(head.weight, dtype=torch.bool)
    free[target] = True
    found = _gradients(problem, head, source, batch_size)
    free[source, found.topk(_kept(share, head)).indices] = True
    return {f"{name}.weight": free}


def _by_weight(problem: Problem, share: float, batch_size: int) -> dict[str, Tensor]:
    name, head = head_of(problem.model, problem.classes)
    source, target = classes_of(problem)
    masks = _rows(name, head, torch.tensor([source, target]))
    hidden = hidden_of(problem.model)
    if hidden is not None:
        masks |= _rows(*hidden, head.weight[source].abs().topk(_kept(share, head)).indices)
    return masks


def _kept(share: float, head: nn.Linear) -> int:
    return max(1, round(share * head.in_features))


def _rows(name: str, layer: nn.Linear, rows: Tensor) -> dict[str, Tensor]:
    """Masks that free these rows of a layer, with their biases."""
    masks = {}
    for own, parameter in layer.named_parameters():
        mask = torch.zeros_like(parameter, dtype=torch.bool)
        mask[rows.to(mask.device)] = True
        masks[f"{name}.{own}"] = mask
    return masks


def _gradients(problem: Problem, head: nn.Linear, source: int, batch_size: int) -> Tensor:
    """(in_features,) Σ over batches of D_f, under its own label, of |∂CE/∂w| of the row `source`."""
    model, conditions = problem.model.eval(), problem.conditions
    total = torch.zeros_like(head.weight[source], requires_grad=False)
    for batch in conditions.meter.ordered_batches(problem.forget, batch_size):
        with autocast(conditions.bf16, batch.images.device):
            loss = F.cross_entropy(model(batch.images).float(), batch.labels)
        (gradient,) = torch.autograd.grad(loss, head.weight)
        total += gradient[source].abs()
    return total


_MASKS = {Criterion.gradient: _by_gradient, Criterion.weight: _by_weight}
