"""Lines: what a sweep prints while it goes on, one when a task begins and one when it has ended."""

import time
from collections.abc import Sequence

from runner.launch.notes import Outcome, has_log, outcome
from runner.launch.task import Task
from runner.say import say


class Lines:
    """Prints the begin and the end of every task, with the time that the rest will take.

    The rest is estimated to take as long, task for task, as those that have ended.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.total = len(tasks)
        self.count = 0
        self.failed = 0
        self.start = time.monotonic()

    def begun(self, task: Task, where: str = "") -> None:
        """Say that a task begins, and where if that is not here."""
        say(f"[{task.place}] {task.label}: begun{where}")

    def ended(self, task: Task) -> None:
        """Say how a task has ended, by its notes. The reason of a failure is said unless it stands above
        already, as that of a task without a log."""
        end = outcome(task.folder) or Outcome(0, "it ended without a word")
        self.count += 1
        self.failed += end.failure is not None
        how = f"done in {duration(end.seconds)}"
        if end.failure is not None:
            how = f"failed: {end.failure}" if has_log(task.folder) else "failed"
        say(f"[{task.place}] {task.label}: {how}{self._rest()}")

    def _rest(self) -> str:
        elapsed = time.monotonic() - self.start
        left = self.total - self.count
        failed = f", {self.failed} failed" if self.failed else ""
        if not left:
            return f"; all {self.total} ended{failed}, in {duration(elapsed)}"
        rest = duration(elapsed / self.count * left)
        return f"; {self.count} of {self.total} ended{failed}, about {rest} left"


def duration(seconds: float) -> str:
    """Return a time in words, in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
