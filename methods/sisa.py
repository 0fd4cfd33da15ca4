"""SISA: train on separate shards, and retrain only the shards that a request hits.

Idea: cheaper exact unlearning. A row is in one shard, and a shard is trained slice by slice.
Update rule: train S models, each on one shard. For r = 1…R train on slices 1…r for e_r epochs by the
original's recipe and store a checkpoint. e_r is 2E/(R + 1), rounded to whole epochs such that
Σ_r r·e_r = R·E: a shard costs E epochs of its rows. If E < (R + 1)/2, every slice still takes one epoch,
which costs more. Unlearning returns to the checkpoint before the first slice with a forgotten row and
trains on without the forgotten rows.
Needs: all rows before the request; after it, the retained rows of the shards that are hit.
Differs from the reference code: the optimizer is reset at every slice, so that a resumed shard has the
same bits as an uninterrupted one. The recipe's warm-up and schedule restart with it and keep their
numbers of epochs. Shards can follow classes (`sharding: by_class`), so that a request for a class hits
few shards. Checkpoints are stored by their training data: a killed run resumes at its last slice, and
later requests reuse every checkpoint that still fits. The model before the request is an ensemble too,
and the results list its accuracy separately, because S models on N/S rows each are worse than one model
on N rows.
Reference: Bourtoule et al., Machine Unlearning, S&P 2021.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import COUNT
from data.errors import UserError
from data.split import Split
from data.streams import Streams
from methods.base import Access, Facts, Method, Problem
from methods.training.cost import Cost, Meter
from methods.training.loop import Conditions, fit


class Aggregate(Enum):
    """The `mean` of the members' probabilities, or the majority `vote` of their predictions.

    The mean breaks ties of the vote.
    """

    mean = "mean"
    vote = "vote"


class Sharding(Enum):
    """`uniform` shards are random. `by_class` shards follow the labels, so that few hold one class."""

    uniform = "uniform"
    by_class = "by_class"


class Ensemble(nn.Module):
    """Several models as one: (B, C, H, W) images to (B, K) logarithms of probabilities."""

    vote: Tensor

    def __init__(self, members: list[nn.Module], vote: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("vote", torch.tensor(vote))  # stored with the weights, for `Sisa.module`

    def forward(self, images: Tensor) -> Tensor:
        # p_s = softmax(f_s(x)) of every member, (S, B, K)
        each = torch.stack([member(images).float().softmax(1) for member in self.members])
        mean = each.mean(0)  # p̄ = (1/S) Σ_s p_s
        if self.vote:
            # p_k = (votes_k + p̄_k)/(S + 1): one vote outweighs any p̄ < 1, so p̄ only breaks ties
            votes = F.one_hot(each.argmax(2), each.shape[2]).sum(0)
            mean = (votes + mean) / (len(self.members) + 1)
        # Logarithms serve as logits: softmax(log p) = p. The clamp avoids log 0.
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


@dataclass(frozen=True)
class Sisa(Method):
    """`shards` is S and `slices` is R, both at least 1; S·R must not exceed the number of rows."""

    kind: ClassVar[str] = "methods.sisa.Sisa"
    access: ClassVar[Access] = Access.FORGET | Access.RETAIN
    # 1 gave every slice the same epochs, rounded; 2 took up slices that another budget had cut
    version: ClassVar[int] = 3
    logs: ClassVar[tuple[str, ...]] = ("shards_hit", "slices_retrained")
    shards: Annotated[int, COUNT]
    slices: Annotated[int, COUNT]
    aggregate: Aggregate
    sharding: Sharding

    def idle(self) -> Mapping[str, str]:
        if self.shards * self.slices > 1:
            return {}
        return {"sharding": "one slice of one shard holds every row"}

    def check(self, facts: Facts) -> None:
        rows = facts.all // (self.shards * self.slices)
        if rows == 0:
            raise UserError(
                f"method.shards={self.shards} of method.slices={self.slices} are more than the "
                f"{facts.all} training rows: set fewer"
            )
        if rows < facts.recipe.batch_size:
            logging.getLogger(__name__).warning(
                "a slice of SISA has only %d rows, fewer than training.batch_size=%d: set a smaller "
                "method.shards or method.slices",
                rows, facts.recipe.batch_size,
            )  # fmt: skip

    def module(self, fresh: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
        count = len({name.split(".")[1] for name in state if name.startswith("members.")})
        return Ensemble([fresh() for _ in range(count)], vote=bool(state["vote"]))

    def initial_training(self, problem: Problem) -> nn.Module:
        """Return the ensemble trained on all rows; its cost is that of all slices."""
        data = _all_rows(problem)
        members = []
        for number, slices in enumerate(self._shards(data, problem.conditions.streams)):
            model, costs = _train_shard(problem, data, number, slices, first=len(slices))
            problem.conditions.meter.add(*costs)
            members.append(model)
        return self._ensemble(members, problem)

    def unlearn(self, problem: Problem) -> nn.Module:
        retained = problem.retain.rows.cpu()
        members, hit, retrained = [], 0, 0
        shards = self._shards(_all_rows(problem), problem.conditions.streams)
        for number, slices in enumerate(shards):
            gone = [bool(torch.isin(rows, problem.forget_rows).any()) for rows in slices]
            # The checkpoint before slice `first` has seen no forgotten row.
            first = gone.index(True) if any(gone) else len(slices)
            left = [rows[torch.isin(rows, retained)] for rows in slices]
            model, costs = _train_shard(problem, problem.retain, number, left, first)
            problem.conditions.meter.add(*costs[first:])  # earlier slices belong to the initial training
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
        """Return the slices of every shard as (n,) row numbers. They do not depend on the request."""
        rows = data.rows[torch.randperm(len(data), generator=streams("shards"))]
        if self.sharding is Sharding.by_class:
            labels = data.labels[torch.searchsorted(data.rows, rows)]
            # Stable: within a class the rows keep their random order.
            rows = rows[labels.argsort(stable=True)]
        shards = []
        for number, shard in enumerate(rows.cpu().tensor_split(self.shards)):
            mixed = torch.randperm(len(shard), generator=streams(f"slices/{number}"))
            shards.append(list(shard[mixed].tensor_split(self.slices)))
        return shards


def _train_shard(
    problem: Problem, data: Split, number: int, slices: list[Tensor], first: int
) -> tuple[nn.Module | None, list[Cost]]:
    """Train a shard slice by slice; return its model and the cost of every slice.

    The budget limits the slices from `first` on, which the request makes necessary. A slice costs
    nothing if no row is left in it or before it. If no row is left in the shard, the model is None.
    """
    streams, meter = problem.conditions.streams, problem.conditions.meter
    epochs = epochs_of_slices(problem.recipe.epochs, len(slices))
    model: nn.Module | None = None
    costs: list[Cost] = []
    cut = False
    for r, (rows, digest) in enumerate(_prefixes(data, slices)):
        if not len(rows):
            costs.append(Cost())
            continue
        whole = epochs[r] * len(rows)
        left = None if r < first else _left(meter, costs[first:])
        budget = left if left is not None and left < whole else None
        start, model = model, problem.fresh(Streams(streams.seed, f"sisa/{number}"))
        make = partial(_continue, start, model, rows, epochs[r], f"sisa/{number}/{r}")
        identity = {"shard": number, "slice": r, "epochs": epochs[: r + 1], "rows": digest}
        # after a cut, the examples spent so far decide where it begins
        identity |= {"spent": [cost.gradient_examples for cost in costs]} if cut else {}
        costs.append(problem.cached_training(identity, make, model, budget))
        # the slice has a meter of its own, whose budget may have ended its passes
        cut |= costs[-1].gradient_examples < whole
        meter.cut |= cut
    return model, costs


def _left(meter: Meter, costs: list[Cost]) -> int | None:
    """Return the gradient examples that are left after these costs: none once the budget has ended a
    slice, as on a single meter, and None for no limit."""
    if meter.budget is None:
        return None
    spent = sum(cost.gradient_examples for cost in costs)
    return 0 if meter.cut else meter.budget - meter.cost.gradient_examples - spent


def _prefixes(data: Split, slices: list[Tensor]) -> Iterator[tuple[Split, str]]:
    """Yield the rows up to each slice, in ascending order, and a digest of these slices.

    The digest covers row numbers and labels, slice by slice.
    """
    seen = hashlib.sha256()
    for r, new in enumerate(slices):
        added = _sorted(data.only(new))
        seen.update(torch.stack([added.rows, added.labels]).cpu().numpy().tobytes())
        yield _sorted(data.only(torch.cat(slices[: r + 1]))), seen.hexdigest()


def epochs_of_slices(epochs: int, slices: int) -> list[int]:
    """Return whole epochs for each slice of a shard; slice r is trained together with all before it.

    In total they show as many rows as `epochs` epochs of the shard, or one epoch for each slice if that
    is more.

    >>> epochs_of_slices(5, 3)
    [2, 2, 3]
    """
    # e = ⌊2E/(R + 1)⌋ is the largest with Σ_r r·e = e·R(R + 1)/2 ≤ R·E; an epoch is the least
    each = max(min(1, epochs), 2 * epochs // (slices + 1))
    # R·E − e·R(R + 1)/2 passes over a slice are missing; one more epoch of slice r adds r of them
    left = slices * epochs - each * slices * (slices + 1) // 2
    found = [each] * slices
    for r in range(slices, 0, -1):
        if r <= left:
            found[r - 1] += 1
            left -= r
    return found


def _all_rows(problem: Problem) -> Split:
    """Return all rows under their labels before the request, in ascending order."""
    return _sorted(problem.rest.joined(problem.forget))


def _sorted(split: Split) -> Split:
    return split.take(split.rows.argsort())


def _continue(
    start: nn.Module | None, model: nn.Module, part: Split, epochs: int, scope: str, given: Conditions
) -> nn.Module:
    """Train `model` by the recipe, from the weights of `start` if there are any, else from its own."""
    if start is not None:
        model.load_state_dict(start.state_dict())
    own = replace(given, streams=Streams(given.streams.seed, scope))
    return fit(model, part, replace(given.recipe, epochs=epochs), own)
