"""Selective dampening: shrink the weights that matter more to the part to forget than to everything."""

import logging

import torch
from torch import nn

from methods.base import Facts, Problem
from methods.weights.importance import PIECE, Importance, Measure, ratio_bound

# A threshold is passed by more than rounding: where only rows to forget move a weight, its ratio is the
# bound on all ratios, to the last bit or so.
ROUNDING = 1e-12


def measured(problem: Problem, measure: Measure, size: int) -> tuple[Importance, Importance]:
    """The importance of every weight to the part to forget, and to all rows.

    All rows are those to forget and the rest, so their importance is put together from the two and no
    row is looked at twice. The rest goes class by class, as in SSD's code: the order decides what a
    measure over batches is. A budget that ends early leaves all rows with those that were seen.
    """
    rest = problem.rest.take(problem.rest.labels.argsort(stable=True))
    forget = measure(problem.model, problem.forget, size, problem.conditions)
    rest_alone = measure(problem.model, rest, size, problem.conditions)
    return forget, rest_alone.joined(forget)


@torch.no_grad()
def dampen(
    model: nn.Module,
    forget: Importance,
    everything: Importance,
    alpha: float,
    dampening: float,
) -> float:
    """θᵢ ← βᵢ·θᵢ with βᵢ = min(dampening·I_D,i / I_f,i, 1), wherever I_f,i > alpha·I_D,i, in place.
    Returns the share of the weights that were selected."""
    selected = total = 0
    for name, parameter in model.named_parameters():
        weights = parameter.view(-1).split(PIECE)
        for part, own, all_ in zip(weights, forget.pieces(name), everything.pieces(name), strict=True):
            chosen = own > alpha * (1 + ROUNDING) * all_  # strictly: weights that matter to none stay
            shrunk = (dampening * all_ / own).clamp(max=1)
            part.mul_(torch.where(chosen, shrunk, 1.0).to(part))
            selected += int(chosen.sum())
            total += chosen.numel()
    return selected / total


def warn_where_nothing_can_be_selected(alpha: float, facts: Facts, size: int | None) -> None:
    """Says so where `alpha` is beyond what any weight's ratio can be (see `ratio_bound`)."""
    bound = ratio_bound(facts.forget, facts.all, size)
    if alpha >= bound:
        unit = "" if size is None else f" in batches of {size}"
        logging.getLogger(__name__).warning(
            "method.alpha=%g selects no weight: with %d of %d rows to forget%s, none matters more than "
            "%.3g times as much to them as to all; set method.alpha below that",
            alpha, facts.forget, facts.all, unit, bound,
        )  # fmt: skip
