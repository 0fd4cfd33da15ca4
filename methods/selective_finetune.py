"""Selective fine-tuning: turn one class into another by moving only the weights that decide for it.

Idea: few weights of the last layers decide for a class. Train these and freeze the rest.
Update rule: θ ← θ − η ∇[CE(relabelled rows) + λ·E f_s(x)²] on the free weights. f_s is the logit of the
class s that goes, and `penalty` is λ. The last layer is W, with a vector W_k of weights per class k.
`importance: gradient` frees the `share` of W_s with the highest Σ_b |∂CE_b/∂w| over batches b of D_f,
and all of W_t of the target class t. `importance: weight` takes the `share` of the hidden units with
the highest |w| in W_s. It frees the weights into these units, in the linear layer before the last, as
well as W_s and W_t, all with their biases.
Needs: a request to relabel, with the relabelled rows, and the forgotten rows for the gradient.
Differs from the paper and the reference code: the paper says gradient and its code uses weight; both
are options here. Frozen weights keep every bit, while masked gradients would let weight decay and
momentum move them. The original is trained on all classes, as in the paper (the code's original never
saw the target class). The code's 32 of 128 units became a share, so that it fits any model. If no
linear layer feeds the last one (as in a ResNet), `weight` trains only W_s and W_t.
Reference: paper 000 (Nuralin and Bakridenov, Machine Unlearning, 2025), section 3.1.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import POSITIVE_SHARE, STRENGTH
from data.errors import UserError
from methods.base import Access, Facts, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import curves, train
from methods.weights.heads import head_of, hidden_of
from methods.weights.masks import only
from models.precision import autocast


class Criterion(Enum):
    """The measure of a weight's importance: the paper's `gradient`, or its code's `weight`."""

    gradient = "gradient"
    weight = "weight"


@dataclass(frozen=True)
class SelectiveFinetune(Descent, Method):
    """`share` is above 0 and at most 1; `penalty` multiplies the mean squared logit of the old class."""

    kind: ClassVar[str] = "methods.selective_finetune.SelectiveFinetune"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    importance: Criterion
    share: Annotated[float, POSITIVE_SHARE]
    penalty: Annotated[float, STRENGTH]

    def check(self, facts: Facts) -> None:
        require_relabelling(facts)

    def unlearn(self, problem: Problem) -> nn.Module:
        source, _ = classes_of(problem)

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            # CE + λ·mean_x f_s(x)²
            return F.cross_entropy(logits, labels) + self.penalty * logits[:, source].square().mean()

        masks = masks_of(problem, self.importance, self.share, self.batch_size)
        with only(problem.model, masks):
            steps = train(problem.model, problem.retain, self, problem.conditions, loss)
            for _ in curves(steps, problem.conditions.log):
                pass
        return problem.model


def require_relabelling(facts: Facts) -> None:
    """Raise UserError if the request does not turn one class into another."""
    if not facts.relabels:
        raise UserError("this method turns one class into another: choose scenario=relabel")


def classes_of(problem: Problem) -> tuple[int, int]:
    """Return the class that goes and the class that it becomes."""
    (source,) = problem.forget.labels.unique().tolist()
    (target,) = problem.retain.only(problem.forget.rows).labels.unique().tolist()
    return source, target


def masks_of(
    problem: Problem, importance: Criterion, share: float, batch_size: int
) -> dict[str, Tensor]:
    """Return masks of the weights that may move (true), by parameter name and in its shape."""
    return _MASKS[importance](problem, share, batch_size)


def _by_gradient(problem: Problem, share: float, batch_size: int) -> dict[str, Tensor]:
    name, head = head_of(problem.model, problem.classes)
    source, target = classes_of(problem)
    free = torch.zeros_like(head.weight, dtype=torch.bool)
    free[target] = True  # all of W_t
    found = _gradients(problem, head, source, batch_size)
    free[source, found.topk(_selected(share, head)).indices] = True
    return {f"{name}.weight": free}


def _by_weight(problem: Problem, share: float, batch_size: int) -> dict[str, Tensor]:
    name, head = head_of(problem.model, problem.classes)
    source, target = classes_of(problem)
    masks = _outputs(name, head, torch.tensor([source, target]))
    hidden = hidden_of(problem.model)
    if hidden is not None:
        units = head.weight[source].abs().topk(_selected(share, head)).indices  # highest |w| in W_s
        masks |= _outputs(*hidden, units)
    return masks


def _selected(share: float, head: nn.Linear) -> int:
    """Return the number of inputs of the last layer that the share selects, at least one."""
    return max(1, round(share * head.in_features))


def _outputs(name: str, layer: nn.Linear, outputs: Tensor) -> dict[str, Tensor]:
    """Return masks that free these outputs of a layer: their weights and biases."""
    masks = {}
    for own, parameter in layer.named_parameters():
        mask = torch.zeros_like(parameter, dtype=torch.bool)
        mask[outputs.to(mask.device)] = True
        masks[f"{name}.{own}"] = mask
    return masks


def _gradients(problem: Problem, head: nn.Linear, source: int, batch_size: int) -> Tensor:
    """Return (in_features,) Σ_b |∂CE_b/∂W_s| over the batches b of D_f, under their old label s."""
    model, conditions = problem.model.eval(), problem.conditions
    total = torch.zeros_like(head.weight[source], requires_grad=False)
    for batch in conditions.meter.ordered_batches(problem.forget, batch_size):
        with autocast(conditions.bf16, batch.images.device):
            # CE_b, the mean over the batch
            loss = F.cross_entropy(model(batch.images).float(), batch.labels)
        (gradient,) = torch.autograd.grad(loss, head.weight)
        # the absolute value of each batch's gradient, so that batches do not cancel each other
        total += gradient[source].abs()
    return total


_MASKS = {Criterion.gradient: _by_gradient, Criterion.weight: _by_weight}
