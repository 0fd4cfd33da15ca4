"""SISA: train on shards apart from each other, retrain only those that a request hits.

Idea: exact unlearning made cheaper: a row is in one shard, and a shard is trained slice by slice.
Update rule: S models, each on its own shard, on slices 1…r for e_r epochs for r = 1…R with the
original's recipe, a checkpoint after every slice; e_r is 2E/(R + 1) in whole epochs, with Σ r·e_r = R·E,
so that a shard costs E epochs of it. Where E < (R + 1)/2 every slice still takes one, which costs more.
Unlearning goes back to the checkpoint before the first slice that holds a forgotten row, and trains on
without it.
Needs: all rows, before the request; the retained rows of the shards that are hit, after it.
Differs from the reference code: the optimizer is reset at every slice, since only then is a resumed
shard what an uninterrupted one would be; the recipe's warm-up and schedule begin again with it, their
numbers of epochs as they are. Shards can follow classes (`sharding: by_class`), so that a request for a
class hits few. Checkpoints are kept by what they were trained on: a killed run goes on at its last
slice, and the next request shares what it can. What is unlearned is an ensemble, and its accuracy before
the request is a line of its own, since S models on N/S rows are worse than one on N.
Reference: Bourtoule et al., Machine Unlearning, S&P 2021.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import UserError
from data.split import Split
from data.streams import Streams
from methods.base import Access, Facts, Method, Problem
from methods.training.checks import at_least_one
from methods.training.cost import Cost
from methods.training.loop import Conditions, fit


class Aggregate(Enum):
    """`mean` of the members' softmax; majority `vote` of their predictions, ties by the mean."""

    mean = "mean"
    vote = "vote"


class Sharding(Enum):
    """`uniform` at random, or `by_class`: in the order of labels, so that a class is in few shards."""

    uniform = "uniform"
    by_class = "by_class"


class Ensemble(nn.Module):
    """Members that answer together: (B, C, H, W) to (B, K) logarithms of probabilities."""

    vote: Tensor

    def __init__(self, members: list[nn.Module], vote: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("vote", torch.tensor(vote))  # part of what the weights mean

    def forward(self, images: Tensor) -> Tensor:
        each = torch.stack([member(images).float().softmax(1) for member in self.members])
        mean = each.mean(0)
        if self.vote:
            votes = F.one_hot(each.argmax(2), each.shape[2]).sum(0)
            mean = (votes + mean) / (len(self.members) + 1)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


@dataclass(frozen=True)
class Sisa(Method):
    kind: ClassVar[str] = "methods.sisa.Sisa"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    version: ClassVar[int] = 2  # 1 gave every slice the same epochs, rounded
    shards: int
    slices: int
    aggregate: Aggregate
    sharding: Sharding

    def check_parameters(self, option: str) -> None:
        at_least_one(option, self, "shards", "slices")

    def check(self, facts: Facts) -> None:
        if self.shards * self.slices > facts.all:
            raise UserError(
                f"method.shards={self.shards} of method.slices={self.slices} are more than the "
                f"{facts.all} training rows: set fewer"
            )

    def module(self, fresh: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
        count = len({name.split(".")[1] for name in state if name.startswith("members.")})
        return Ensemble([fresh() for _ in range(count)], vote=bool(state["vote"]))

    def initial_training(self, problem: Problem) -> nn.Module:
        """The ensemble trained on all rows; its cost is that of all its slices."""
        data = _all_rows(problem)
        members = []
        for number, shard in enumerate(self._shards(data, problem.conditions.streams)):
            model, costs = self._train(problem, data, number, shard, len(shard))
            problem.conditions.meter.add(*costs)
            members.append(model)
        return self._ensemble(members, problem)

    def unlearn(self, problem: Problem) -> nn.Module:
        retained = problem.retain.rows.cpu()
        members, hit, retrained = [], 0, 0
        shards = self._shards(_all_rows(problem), problem.conditions.streams)
        for number, shard in enumerate(shards):
            gone = [bool(torch.isin(rows, problem.forget_rows).any()) for rows in shard]
            first = gone.index(True) if any(gone) else len(shard)
            kept = [rows[torch.isin(rows, retained)] for rows in shard]
            model, costs = self._train(problem, problem.retain, number, kept, first)
            problem.conditions.meter.add(*costs[first:])  # what came before the request is paid
            hit, retrained = hit + any(gone), retrained + len(costs[first:])
            members.append(model)
        problem.conditions.log({"shards_hit": hit, "slices_retrained": retrained})
        if hit == len(shards) > 1:
            logging.getLogger(__name__).warning("the request hits all %d shards of SISA", hit)
        return self._ensemble(members, problem)

    def _ensemble(self, members: list[nn.Module | None], problem: Problem) -> nn.Module:
        trained = [member for member in members if member is not None]
        ensemble = Ensemble(trained, vote=self.aggregate is Aggregate.vote)
        return ensemble.to(problem.conditions.meter.device)

    def _shards(self, data: Split, streams: Streams) -> list[list[Tensor]]:
        """Each shard's slices of row numbers, whatever the request."""
        rows = data.rows[torch.randperm(len(data), generator=streams("shards"))]
        if self.sharding is Sharding.by_class:
            labels = data.labels[torch.searchsorted(data.rows, rows)]
            rows = rows[labels.argsort(stable=True)]
        shards = []
        for number, shard in enumerate(rows.cpu().tensor_split(self.shards)):
            mixed = torch.randperm(len(shard), generator=streams(f"slices/{number}"))
            shards.append(list(shard[mixed].tensor_split(self.slices)))
        return shards

    def _train(
        self, problem: Problem, data: Split, number: int, slices: list[Tensor], first: int
    ) -> tuple[nn.Module | None, list[Cost]]:
        """A shard's model after its last slice, and what each slice cost; no model where no row is left.
        The budget bounds the slices from `first` on, which are trained for the request."""
        meter = problem.conditions.meter
        left = None if meter.budget is None else meter.budget - meter.cost.gradient_examples
        epochs = epochs_of_slices(problem.recipe.epochs, len(slices))
        model: nn.Module | None = None
        costs, seen = [], hashlib.sha256()
        for r, rows in enumerate(slices):
            part = _sorted(data.only(torch.cat(slices[: r + 1])))
            new = _sorted(data.only(rows))
            seen.update(torch.stack([new.rows, new.labels]).cpu().numpy().tobytes())
            if not len(part):
                costs.append(Cost())
                continue
            start = model
            model = problem.fresh(Streams(problem.conditions.streams.seed, f"sisa/{number}"))
            make = partial(_continue, start, model, part, epochs[r], f"sisa/{number}/{r}")
            own = epochs[: r + 1]
            identity = {"shard": number, "slice": r, "epochs": own, "rows": seen.hexdigest()}
            budget = None if r < first or left is None else left
            costs.append(problem.cached_training(identity, make, model, budget))
            left = None if left is None else left - (costs[-1].gradient_examples if r >= first else 0)
        return model, costs


def epochs_of_slices(epochs: int, slices: int) -> list[int]:
    """Whole epochs for each of a shard's slices, of which slice r is trained on with all before it:
    together as many rows as `epochs` of the whole shard, or one epoch each where that is more.

    >>> epochs_of_slices(5, 3)
    [2, 2, 3]
    """
    each = max(min(1, epochs), 2 * epochs // (slices + 1))
    left = slices * epochs - each * slices * (slices + 1) // 2
    found = [each] * slices
    for r in range(slices, 0, -1):
        if r <= left:
            found[r - 1] += 1
            left -= r
    return found


def _all_rows(problem: Problem) -> Split:
    """The rows as they were before the request, ascending."""
    return _sorted(problem.rest.joined(problem.forget))


def _sorted(split: Split) -> Split:
    return split.take(split.rows.argsort())


def _continue(
    start: nn.Module | None, model: nn.Module, part: Split, epochs: int, scope: str, given: Conditions
) -> nn.Module:
    """Trains on from the checkpoint before, or from the beginning, by the recipe."""
    if start is not None:
        model.load_state_dict(start.state_dict())
    own = replace(given, streams=Streams(given.streams.seed, scope))
    return fit(model, part, replace(given.recipe, epochs=epochs), own)
