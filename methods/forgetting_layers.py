"""Forgetting layers: let neurons fade as memory does, fastest those most active on the forgotten rows.

Idea: Ebbinghaus' forgetting curve multiplies a neuron's output by φ(t) = exp(−t/τ).
Update rule: in each of `rounds` rounds every neuron j before the last layer fades by exp(−r_j/τ); then
`epochs` of descent on CE(D_r) follow. `rates: fixed`: r_j = 1. `varied`: r_j is drawn once, uniformly
from (0, 1). `rank`: r_j is the neuron's rank by mean |activation| on D_f, divided by the number of
neurons and measured in each round, so that the most active neuron fades by exp(−1/τ). `tau` is τ, in
rounds.
Needs: the forgotten rows (one forward pass each round with `rates: rank`) and the retained ones.
Differs from the paper: that inserts layers of factors into the network. Here each factor goes into the
weights that read the neuron, which computes the same function in the original's architecture. Only the
neurons before the last linear layer fade. The paper's schedule and its fourth kind of rates (only the n
highest ranks) are not reproduced; the numbers are this project's.
Reference: Hatua et al., Machine Unlearning using Forgetting Neural Networks, 2024 (arXiv 2410.22374).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from data.bounds import POSITIVE, ROUNDS
from data.streams import Streams
from methods.base import Access, Method, Problem
from methods.training.descent import Descent
from methods.training.loop import Conditions, fit
from methods.weights.heads import head_of
from models.precision import autocast


class Rates(Enum):
    """The rates r_j: all 1, random, or by the rank of the neuron's activity on D_f."""

    fixed = "fixed"
    varied = "varied"
    rank = "rank"


@dataclass(frozen=True)
class ForgettingLayers(Descent, Method):
    kind: ClassVar[str] = "methods.forgetting_layers.ForgettingLayers"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    logs: ClassVar[tuple[str, ...]] = ("round",)
    rounds: Annotated[int, ROUNDS]
    rates: Rates
    tau: Annotated[float, POSITIVE]

    def unlearn(self, problem: Problem) -> nn.Module:
        _, head = head_of(problem.model, problem.classes)
        for number in range(self.rounds):
            if problem.conditions.meter.cut:
                break  # what fades now would not be trained any more
            fade(head, _RATES[self.rates](problem, head, self.batch_size), self.tau)
            fit(problem.model, problem.retain, self, _of_round(problem.conditions, number))
        return problem.model


@torch.no_grad()
def fade(head: nn.Linear, rates: Tensor, tau: float) -> None:
    """Multiply the weights that read neuron j by exp(−rates[j]/tau), in place.

    `rates` has the shape (in_features,).
    """
    # w·(φⱼ·aⱼ) = (w·φⱼ)·aⱼ, with φⱼ = exp(−rⱼ/τ)
    # The weight (K, in_features) is multiplied column by column.
    head.weight.mul_((-rates / tau).exp())


def _of_round(conditions: Conditions, number: int) -> Conditions:
    """Return the conditions of a round: another order of rows each round, and its number in the log."""
    streams = Streams(conditions.streams.seed, f"{conditions.streams.scope}/round{number}")

    def log(values: Mapping[str, float]) -> None:
        conditions.log({"round": number + 1, **values})

    return replace(conditions, streams=streams, log=log)


def _fixed(problem: Problem, head: nn.Linear, batch_size: int) -> Tensor:
    return torch.ones_like(head.weight[0])


def _varied(problem: Problem, head: nn.Linear, batch_size: int) -> Tensor:
    # The stream begins anew at each call, so that every round has the same rates.
    rates = torch.rand(head.in_features, generator=problem.conditions.streams("rates"))
    return rates.to(head.weight.device)


def _rank(problem: Problem, head: nn.Linear, batch_size: int) -> Tensor:
    """Return rank/n of each of n neurons: 1/n for the least active on D_f, 1 for the most active."""
    activity = activity_on_forgotten(problem, head, batch_size)
    ranks = torch.empty_like(activity)
    # rank n to the neuron with the highest activity, rank 1 to that with the lowest
    ranks[activity.argsort(stable=True)] = torch.arange(1, len(activity) + 1).to(ranks)
    return ranks / len(activity)


@torch.no_grad()
def activity_on_forgotten(problem: Problem, head: nn.Linear, batch_size: int) -> Tensor:
    """Return (in_features,): Σ over D_f of |activation| of each neuron before the head."""
    model, conditions = problem.model.eval(), problem.conditions
    total = torch.zeros_like(head.weight[0])

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # (B, …, in_features) to (in_features,): the sum has the same ranks as the mean
        total.add_(inputs[0].detach().float().abs().flatten(0, -2).sum(0))

    hook = head.register_forward_pre_hook(note)
    try:
        for batch in conditions.meter.forward_batches(problem.forget, batch_size):
            with autocast(conditions.bf16, batch.images.device):
                model(batch.images)
    finally:
        hook.remove()
    return total


_RATES: dict[Rates, Callable[[Problem, nn.Linear, int], Tensor]] = {
    Rates.fixed: _fixed,
    Rates.varied: _varied,
    Rates.rank: _rank,
}
