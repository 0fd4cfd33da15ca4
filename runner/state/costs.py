"""Costs: the time and the space that missing trainings will take, from those that the store has seen."""

from collections.abc import Iterable
from contextlib import suppress
from statistics import median
from typing import NamedTuple

from runner.stages.workspace import COST
from runner.state.trainings import Kind, Training, kind
from runner.store import Artefact


class StoredCost(NamedTuple):
    """The seconds of a training, and the bytes of what it stores."""

    seconds: float
    bytes: float


class CostLeft(NamedTuple):
    """The cost of missing trainings together, and the number of those whose cost is not known."""

    cost: StoredCost
    unknown: int


class Ledger:
    """The costs of trainings that are stored, by their kind."""

    def __init__(self, stored: Iterable[Artefact]) -> None:
        self._costs: dict[Kind, list[StoredCost]] = {}
        self._medians: dict[Kind, StoredCost] = {}
        for artefact in stored:
            self.add(artefact)

    def cost(self, training: Training) -> StoredCost | None:
        """Return the median cost of stored trainings of the same kind; None if there is none, nor one
        that takes as long."""
        found = (self._of_kind(each) for each in training.kinds)
        own = next((cost for cost in found if cost is not None), None)
        if own is None or training.original is None or not training.original.stored:
            return own
        again = self._of_kind(training.original.kinds[0])
        return own if again is None else StoredCost(own.seconds + again.seconds, own.bytes)

    def left(self, trainings: Iterable[Training]) -> CostLeft:
        """Return what the missing ones of these trainings cost, each counted once."""
        missing = {each.artefact: each for each in trainings if not each.stored}
        costs = [self.cost(each) for each in missing.values()]
        known = [cost for cost in costs if cost is not None]
        total = StoredCost(sum(cost.seconds for cost in known), sum(cost.bytes for cost in known))
        return CostLeft(total, len(costs) - len(known))

    def add(self, made: Artefact) -> None:
        """Count the cost of an artefact, if it has one."""
        if (cost := cost_of(made)) is not None:
            with suppress(OSError, ValueError):  # it may be damaged, or be deleted meanwhile
                of_kind = kind(made.stage, made.identity)
                self._costs.setdefault(of_kind, []).append(cost)
                self._medians.pop(of_kind, None)

    def _of_kind(self, wanted: Kind) -> StoredCost | None:
        if wanted not in self._medians and (found := self._costs.get(wanted)) is not None:
            seconds, size = median(cost.seconds for cost in found), median(cost.bytes for cost in found)
            self._medians[wanted] = StoredCost(seconds, size)
        return self._medians.get(wanted)


def cost_of(made: Artefact) -> StoredCost | None:
    """Return the cost of an artefact; None if it has none, is damaged, or was deleted meanwhile."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return StoredCost(float(made.read(COST)["seconds"]), made.size())
    return None
