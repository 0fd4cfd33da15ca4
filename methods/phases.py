"""Paper 003's two phases: every epoch a pass over the forgotten rows, then one over the retained."""

import torch
from torch import nn

from data.errors import UserError
from methods.base import Problem
from methods.training import BatchLoss, Descent, Phase, alternate, cross_entropy


def forget_then_rehearse(
    problem: Problem, descent: Descent, forget_loss: BatchLoss, factor: float, shared_momentum: bool
) -> nn.Module:
    """The model after `descent.epochs` of both phases. The forgetting one descends `forget_loss` at
    `factor` times the learning rate; the other descends the cross-entropy. With `shared_momentum` one
    optimizer serves both; else each has its own, with its own momentum."""
    assert problem.forget is not None and problem.retain is not None
    model, conditions = problem.model, problem.conditions
    forget = Phase(model, problem.forget, descent, conditions, forget_loss, factor=factor, name="forget")
    shared = forget.optimizer if shared_momentum else None
    retain = Phase(model, problem.retain, descent, conditions, cross_entropy, shared, name="retain")
    alternate([forget, retain], descent.epochs)
    return model


def check_factor(option: str, factor: float) -> None:
    """Raises UserError for a factor of the learning rate that turns it around, or is no number."""
    if not 0 <= factor < torch.inf:
        raise UserError(f"{option}.factor={factor}: it must be 0 or more, and finite")
