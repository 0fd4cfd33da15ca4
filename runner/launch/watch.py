"""Watch the jobs of a sweep: by the notes of their tasks, and by Slurm's queue for those that die."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from runner.launch import queue
from runner.launch.lines import TaskLines
from runner.launch.notes import LOG, fail, has_begun, outcome
from runner.launch.task import Task
from runner.say import say

# Seconds between two looks, and those that the notes of a job which has ended may take to appear here: a
# network file system shows them late.
PAUSE, LAG = 1.0, 10.0


@dataclass(frozen=True)
class Job:
    """A job of Slurm: its id, that of its array, and its tasks in turn."""

    id: str
    array: str
    tasks: tuple[Task, ...]


class Watch:
    """What has been seen of the jobs of a sweep. `limit` is their time limit in minutes."""

    def __init__(self, jobs: Sequence[Job], lines: TaskLines, limit: float) -> None:
        self.open = list(jobs)
        self.lines = lines
        self.limit = limit
        self.seen: set[str] = set()  # places of the tasks whose begin, or end, has been told
        self.dead: dict[str, float] = {}  # since when a job has been seen to be dead
        self.told: set[str] = set()  # reasons for waiting

    def until_the_end(self) -> None:
        """Tell of every task's begin and end, until all have ended. A dead job's failure is noted."""
        while self.open:
            self.look()
            if self.open:
                time.sleep(PAUSE)

    def look(self) -> None:
        """Look at all jobs once."""
        states: dict[str, queue.JobState] = {}
        silent = set()
        for array in {job.array for job in self.open}:
            found = queue.states(array)
            states |= found or {}
            silent |= {array} if found is None else set()
        self._tell_of_waiting(states)
        for job in list(self.open):
            state = None if job.array in silent else states.get(job.id, queue.FORGOTTEN)
            if state is not None and state.word == "PENDING":
                self.dead.pop(job.id, None)
                continue
            if self._tell_of(job):
                self.open.remove(job)
            elif state is not None and self._is_dead(job, state):
                self._bury(job, state)

    def _tell_of(self, job: Job) -> bool:
        """Tell of the tasks of a job that have begun or ended since; return whether all have ended."""
        for task in job.tasks:
            begin, end = f"{task.place} begun", f"{task.place} ended"
            if begin not in self.seen and has_begun(task.folder):
                self.seen.add(begin)
                self.lines.begun(task, f" in Slurm's job {job.id}")
            if end not in self.seen and outcome(task.folder) is not None:
                self.seen.add(end)
                self.lines.ended(task)
        return all(f"{task.place} ended" in self.seen for task in job.tasks)

    def _is_dead(self, job: Job, state: queue.JobState) -> bool:
        """Return whether a job has ended for so long that no note of its will come any more."""
        if not state.is_final and state is not queue.FORGOTTEN:
            self.dead.pop(job.id, None)
            return False
        return time.monotonic() - self.dead.setdefault(job.id, time.monotonic()) > LAG

    def _bury(self, job: Job, state: queue.JobState) -> None:
        """Note the failure of the tasks that a dead job has left: the one that ran, and the others."""
        log = job.tasks[0].folder / LOG  # the tasks of a job share it
        said = log.read_text(errors="replace") if log.exists() else ""
        reason = queue.why(job.id, state, self.limit, said)
        for task in job.tasks:
            if outcome(task.folder) is None:
                before = "" if has_begun(task.folder) else "it never began: "
                fail(task.folder, before + reason)
        self._tell_of(job)
        self.open.remove(job)

    def _tell_of_waiting(self, states: dict[str, queue.JobState]) -> None:
        """Tell once of every reason for which jobs wait, if it is not their turn alone."""
        waits = {state.reason for state in states.values() if state.word == "PENDING"}
        for reason in sorted(waits - queue.ORDINARY - self.told):
            self.told.add(reason)
            number = sum(state.reason == reason for state in states.values())
            say(f"{number} jobs wait in Slurm's queue, which gives as the reason: {reason}")
