"""Selective dampening: shrink the weights that matter more to the forgotten rows than to all rows."""

import logging

import torch
from torch import nn

from data.split import Split
from methods.base import Facts, Problem
from methods.weights.importance import PIECE, Importance, Measure, ratio_bound

# A ratio must exceed the threshold by more than rounding. A weight that only forgotten rows move has the
# largest possible ratio, up to the last bits, and a threshold at that bound must not select it.
ROUNDING = 1e-12


def measured(problem: Problem, measure: Measure, size: int) -> tuple[Importance, Importance]:
    """Return the importance of every weight to the forgotten rows D_f and to all rows D.

    Measure D_f and the rest separately, in batches of `size` rows, and add the sums: one gradient per
    row, and no batch with rows of both parts. If the budget ends the measurement, D holds the rows
    measured until then.
    """
    forget = measure(problem.model, problem.forget, size, problem.conditions)
    # n_D·I_D = n_f·I_f + n_r·I_r, with n the numbers of rows (or of batches): the sums add up.
    rest = measure(problem.model, by_class(problem.rest), size, problem.conditions)
    return forget, rest.joined(forget)


def by_class(split: Split) -> Split:
    """Return the rows sorted by class, stably. Measures over batches depend on the order."""
    return split.take(split.labels.argsort(stable=True))


@torch.no_grad()
def dampen(
    model: nn.Module,
    forget: Importance,
    everything: Importance,
    alpha: float,
    dampening: float,
) -> float:
    """Dampen the selected weights in place and return their share of all weights, from 0 to 1.

    θᵢ ← βᵢ·θᵢ with βᵢ = min(dampening·I_D,i / I_f,i, 1) for every i with I_f,i > alpha·I_D,i (Foster et
    al. 2024). `forget` is I_f, `everything` is I_D.
    """
    selected = total = 0
    for name, parameter in model.named_parameters():
        weights = parameter.view(-1).split(PIECE)
        for part, own, all_ in zip(weights, forget.pieces(name), everything.pieces(name), strict=True):
            # I_f > α·I_D, strictly: a weight that matters to no row (0 > 0) stays.
            chosen = own > alpha * (1 + ROUNDING) * all_
            # β = min(λ·I_D/I_f, 1): no weight grows.
            shrunk = (dampening * all_ / own).clamp(max=1)
            part.mul_(torch.where(chosen, shrunk, 1.0).to(part))
            selected += int(chosen.sum())
            total += chosen.numel()
    return selected / total


def warn_if_nothing_can_be_selected(alpha: float, facts: Facts, size: int | None) -> None:
    """Log a warning if no weight's ratio can exceed `alpha` (see `ratio_bound`).

    `size` is the batch size of a measure over batches, None for a measure over rows.
    """
    bound = ratio_bound(facts.forget, facts.all, size)
    if alpha >= bound:
        unit = "" if size is None else f" in batches of {size}"
        logging.getLogger(__name__).warning(
            "method.alpha=%g selects no weight: with %d of %d rows to forget%s, no weight matters more "
            "than %.3g times as much to them as to all rows; set method.alpha below that",
            alpha, facts.forget, facts.all, unit, bound,
        )  # fmt: skip
