"""Costs: the time and the space that missing trainings will take, from those that the store has seen."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

from runner.stages.workspace import COST
from runner.state.trainings import Training
from runner.store import Store, fingerprint

# What distinguishes trainings of one kind: the seeds, and the rows that a shadow leaves out.
OF_EACH = {"seed", "request_seed", "share"}


class Cost(NamedTuple):
    """The seconds of a training, and the bytes of what it stores."""

    seconds: float
    bytes: float


class Left(NamedTuple):
    """The cost of missing trainings together, and the number of those whose cost is not known."""

    cost: Cost
    unknown: int


def kind(identity: Any) -> Any:
    """Return an identity without what distinguishes trainings of one kind."""
    if isinstance(identity, Mapping):
        return {name: kind(value) for name, value in identity.items() if name not in OF_EACH}
    return identity


@dataclass
class Ledger:
    """The costs of the trainings in a store, by their kind."""

    store: Store

    def cost(self, training: Training) -> Cost | None:
        """Return the median cost of stored trainings of the same kind; None if there is none, nor one
        that takes as long."""
        own = self._of_kind(*training.wanted)
        if own is None and training.instead is not None:
            own = self._of_kind(*training.instead)
        if own is None or training.original is None or not training.original.stored:
            return own
        again = self._of_kind(*training.original.wanted)
        return own if again is None else Cost(own.seconds + again.seconds, own.bytes)

    def left(self, trainings: Iterable[Training]) -> Left:
        """Return what the missing ones of these trainings cost, each counted once."""
        missing = {each.artefact: each for each in trainings if not each.stored}
        costs = [self.cost(each) for each in missing.values()]
        known = [cost for cost in costs if cost is not None]
        total = Cost(sum(cost.seconds for cost in known), sum(cost.bytes for cost in known))
        return Left(total, len(costs) - len(known))

    def _of_kind(self, stage: str, identity: Mapping[str, Any]) -> Cost | None:
        found = self._stored.get((stage, fingerprint(kind(identity))))
        if found is None:
            return None
        return Cost(median(cost.seconds for cost in found), median(cost.bytes for cost in found))

    @cached_property
    def _stored(self) -> dict[tuple[str, str], list[Cost]]:
        found: dict[tuple[str, str], list[Cost]] = {}
        for artefact in self.store.artefacts():
            # an artefact may lack a cost, be damaged, or be deleted meanwhile
            with suppress(OSError, ValueError, KeyError, TypeError):
                seconds = float(json.loads((artefact.path / COST).read_text())["seconds"])
                of_kind = (artefact.stage, fingerprint(kind(artefact.identity)))
                found.setdefault(of_kind, []).append(Cost(seconds, artefact.size()))
        return found
