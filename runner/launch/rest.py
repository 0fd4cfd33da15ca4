"""The rest of a sweep: the seconds that its tasks will take that have not ended."""

import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from statistics import median
from typing import NamedTuple

from runner.launch.task import Task
from runner.plan import Plan
from runner.stages.references import wanted_references
from runner.state.cells import Cells
from runner.state.costs import Ledger, cost_of
from runner.state.trainings import Training, of_original, trainings
from runner.store import Store


class TimeLeft(NamedTuple):
    """The seconds until the last task ends, as far as they are known, the number of tasks of which they
    are not, and that of those which count as long as others."""

    seconds: float
    unknown: int
    alike: int


class Rest:
    """Estimates the seconds until the last task ends.

    A task takes as long as the trainings that it lacks, by the costs in the store, each counted once. A
    training of a kind that the store has not takes the median of those of its sort that this sweep made.
    Beyond them, for data, predictions and scores, it takes the median of the tasks of its kind that have
    ended: shared trainings, cells that train, and cells of which every training is stored. `at_once`
    tasks are at work at once, or as many as have been seen to be.
    """

    def __init__(self, tasks: Sequence[Task], planned: Cells, at_once: int = 1) -> None:
        self.at_once = at_once
        plans = {task: cell.plan for task in tasks if (cell := planned.get(task.overrides)) is not None}
        # of each task that has not ended, by its place: all its trainings; None without a plan
        self.needs = {task.place: _needs(task, plans.get(task)) for task in tasks}
        needed = chain.from_iterable(needs or [] for needs in self.needs.values())
        self.missing = {each.artefact for each in needed if not each.stored}
        roots = sorted({plan.root for plan in plans.values() if plan is not None})
        self.ledger = Ledger(chain.from_iterable(Store(root / "store").artefacts() for root in roots))
        self.shared = {task.place for task in tasks if task.shared is not None}
        # of each task that is at work, by its place: its begin, and the trainings that it lacked then
        self.at_work: dict[str, tuple[float, list[Training]]] = {}
        self.beyond: dict[tuple[bool, bool], list[float]] = defaultdict(list)
        self.made: dict[tuple[str, bool], list[float]] = defaultdict(list)

    def begun(self, task: Task) -> None:
        """Note that a task is at work."""
        self.at_work[task.place] = time.monotonic(), self._lacking(task.place)
        self.at_once = max(self.at_once, len(self.at_work))

    def put_aside(self, task: Task) -> None:
        """Note that a task is at work no longer, and will begin again."""
        self.at_work.pop(task.place, None)

    def ended(self, task: Task, seconds: float | None) -> None:
        """Note the seconds that a task has taken; None if it failed, which tells nothing."""
        _, lacked = self.at_work.pop(task.place, (0, self._lacking(task.place)))
        made = [each for each in lacked if each.stored]
        for each in made:
            if each.artefact in self.missing:
                self.missing.remove(each.artefact)
                self.ledger.add(each.artefact)
        if self.needs.pop(task.place) is not None and seconds is not None:
            trained = 0.0
            for each in made:
                if (cost := cost_of(each.artefact)) is not None:
                    self.made[_sort(each)].append(cost.seconds)
                    trained += cost.seconds
            # a training that went on from an earlier state, or was waited for, may have cost more
            beyond = max(0.0, seconds - trained)
            self.beyond[task.place in self.shared, bool(lacked)].append(beyond)

    def left(self) -> TimeLeft:
        """Return what the tasks will take that have not ended."""
        each, unknown, alike = [], 0, 0
        counted = set()
        for place, needs in self.needs.items():
            if needs is None:
                unknown += 1
                continue
            lacking = self._lacking(place)
            new = [(one, self.ledger.cost(one)) for one in lacking if one.artefact not in counted]
            counted |= {one.artefact for one in lacking}
            costs = [self._like(one) if cost is None else cost.seconds for one, cost in new]
            beyond = self.beyond.get((place in self.shared, bool(lacking)))
            is_unknown = None in costs or (not lacking and beyond is None)
            unknown += is_unknown
            alike += not is_unknown and any(cost is None for _, cost in new)
            seconds = sum(cost for cost in costs if cost is not None)
            seconds += 0 if beyond is None else median(beyond)
            each.append(max(0.0, seconds - self._elapsed(place)))
        # no sooner than the longest, and no sooner than all of them at once
        return TimeLeft(max([sum(each) / self.at_once, *each]), unknown, alike)

    def _like(self, training: Training) -> float | None:
        """Return the median seconds of the trainings of its sort that this sweep made, if any."""
        made = self.made.get(_sort(training))
        return None if made is None else median(made)

    def _lacking(self, place: str) -> list[Training]:
        return [each for each in self.needs[place] or [] if each.artefact in self.missing]

    def _elapsed(self, place: str) -> float:
        return time.monotonic() - self.at_work[place][0] if place in self.at_work else 0


def _sort(training: Training) -> tuple[str, bool]:
    """Return what a training has in common with others: its stage, and whether it takes as long as
    another one, as a retraining does."""
    return training.artefact.stage, training.instead is not None


def _needs(task: Task, plan: Plan | None) -> list[Training] | None:
    """Return the trainings of a task, stored or not; None if they are not known."""
    if plan is None:
        return None
    store = Store(plan.root / "store")
    if task.shared is None:
        return trainings(plan, store)
    if task.shared.reference is None:
        original, records = of_original(plan, store)
        return [original, *records]
    made = store.find(*wanted_references(plan)[task.shared.reference])
    return [each for each in trainings(plan, store) if each.artefact == made]
