"""Lines: what a sweep prints while it goes on, one when a task begins and one when it has ended."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.launch.notes import WITHOUT_A_NOTE, Outcome, outcome
from runner.launch.task import Task
from runner.say import duration, say, without_estimate

if TYPE_CHECKING:  # it imports torch
    from runner.launch.rest import Rest


class TaskLines:
    """Prints the begin and the end of every task, with the time that the rest will take.

    `here` is true if the tasks run in this process, where a failure is printed as it happens.
    """

    def __init__(self, tasks: Sequence[Task], rest: "Rest", here: bool = False) -> None:
        self.rest = rest
        self.here = here
        self.total = len(tasks)
        self.count = 0
        self.failed = 0
        self.start = time.monotonic()

    def begun(self, task: Task, where: str = "") -> None:
        """Say that a task begins, and where if that is not here."""
        self.rest.begun(task)
        say(f"[{task.place}] {task.label}: begun{where}")

    def died(self, task: Task, how: str) -> None:
        """Say how a task has died that will begin again."""
        self.rest.put_aside(task)
        say(f"[{task.place}] {task.label}: {how}")

    def ended(self, task: Task) -> None:
        """Say how a task has ended, by its notes, and why it failed unless that stands above already."""
        end = outcome(task.folder) or Outcome(0, WITHOUT_A_NOTE)
        self.count += 1
        self.failed += end.failure is not None
        self.rest.ended(task, end.seconds if end.failure is None else None)
        how = f"done in {duration(end.seconds)}"
        if end.failure is not None:
            how = "failed" if self.here else f"failed: {end.failure}"
        say(f"[{task.place}] {task.label}: {how}{self._count()}")

    def left_over(self) -> str:
        """Return how many tasks have not ended, in words."""
        return f"{self.total - self.count} of {self.total} had not ended"

    def _count(self) -> str:
        elapsed = time.monotonic() - self.start
        left = self.total - self.count
        failed = f", {self.failed} failed" if self.failed else ""
        if not left:
            return f"; all {self.total} ended{failed}, in {duration(elapsed)}"
        return f"; {self.count} of {self.total} ended{failed}{self._left(left)}"

    def _left(self, number: int) -> str:
        """Return the time that so many tasks will take, as far as it is known; nothing if it is known
        of none."""
        seconds, unknown, alike = self.rest.left()
        if unknown == number and not seconds:
            return ""
        like = f"{alike} cell{'s are' if alike > 1 else ' is'} estimated by others of this sweep"
        notes = [like] if alike else []
        notes += [without_estimate(unknown, "cell")] if unknown else []
        said = "; ".join(notes)
        if unknown and not round(seconds):
            return f", {said}"
        return f", about {duration(seconds)} left{f' ({said})' if notes else ''}"
