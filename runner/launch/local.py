"""Cells of a sweep in several processes of this machine, each with a log file of its own.

A process that dies takes its cell with it and no other one. That cell is tried once more, alone, when
all others have ended.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.utils import JobReturn

from data.bounds import THREADS
from runner.launch.interrupt import interruptible
from runner.launch.lines import TaskLines
from runner.launch.notes import fail
from runner.launch.options import checked
from runner.launch.task import Task, cells, left, returns
from runner.launch.work import Work

if TYPE_CHECKING:  # a plan imports torch
    from runner.state.cells import Cells

# A new interpreter: a fork would copy the threads of libraries that are imported here.
CONTEXT = get_context("spawn")

# The seconds that a process may take to end after SIGTERM.
PATIENCE = 20


@dataclass(frozen=True)
class Options:
    """`workers` is the number of processes."""

    workers: Annotated[int, THREADS]


class Worker:
    """A process that does one task after another."""

    def __init__(self, work: Work) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(theirs, work))
        self.process.start()
        theirs.close()
        self.task: Task | None = None

    def begin(self, task: Task) -> None:
        """Give the process a task. Raise ConnectionError if it has died."""
        self.pipe.send(task)
        self.task = task

    def end(self) -> None:
        """Let the process end by itself, or by SIGKILL if that takes long."""
        self.pipe.close()
        self.process.join(PATIENCE)
        self.process.kill()
        self.process.join()


class Pool:
    """The processes of a sweep, of which `number` start at once, and its tasks that have not begun."""

    def __init__(self, work: Work, number: int) -> None:
        self.work = work
        self.workers = [Worker(work) for _ in range(number)]
        self.waiting: list[Task] = []
        self.open: set[str] = set()
        self.again: list[Task] = []

    def take(self, tasks: Sequence[Task], lines: TaskLines) -> None:
        """Take the tasks of the sweep, all together, and tell of them by their lines."""
        self.waiting = list(tasks)
        self.open = {task.place for task in tasks}
        self.lines = lines

    def run(self, number: int) -> None:
        """Do all tasks that wait with so many processes at once."""
        while self.waiting or self.busy():
            while len(self.busy()) < number and (task := self._next()) is not None:
                self._begin(task)
                self.lines.begun(task)
            self._hear()

    def end(self) -> None:
        """End every process. Those that are at work are told by SIGTERM, and may keep their state."""
        for worker in self.busy():
            worker.process.terminate()
        for worker in self.workers:
            worker.end()
        self.workers.clear()

    def busy(self) -> list[Worker]:
        """Return the processes that are at work."""
        return [worker for worker in self.workers if worker.task is not None]

    def _next(self) -> Task | None:
        """Remove and return the first task that waits for no other one."""
        for task in self.waiting:
            if not task.after & self.open:
                self.waiting.remove(task)
                return task
        return None

    def _begin(self, task: Task) -> None:
        """Give a task to an idle process. One that has died since its last task is replaced."""
        worker = self._idle()
        try:
            worker.begin(task)
        except ConnectionError:
            worker.end()
            self.workers.remove(worker)
            self._begin(task)

    def _idle(self) -> Worker:
        for worker in self.workers:
            if worker.task is None:
                return worker
        self.workers.append(Worker(self.work))
        return self.workers[-1]

    def _hear(self) -> None:
        """Wait until a process has done its task or is dead."""
        busy = self.busy()
        heard = wait([worker.pipe for worker in busy])
        for worker in busy:
            if worker.pipe in heard:
                try:
                    worker.pipe.recv()
                    self._ended(worker)
                except (EOFError, ConnectionResetError):
                    self._died(worker)

    def _ended(self, worker: Worker) -> None:
        assert worker.task is not None
        self.open.discard(worker.task.place)
        self.lines.ended(worker.task)
        worker.task = None

    def _died(self, worker: Worker) -> None:
        """Put the task of a dead process aside for another try, or note its failure after the second."""
        task = worker.task
        assert task is not None
        worker.process.join()
        self.workers.remove(worker)
        reason = _how(worker.process.exitcode)
        if task in self.again or task.shared is not None:  # its cells try it again
            fail(task.folder, reason)
            self._ended(worker)
            return
        self.lines.died(task, f"{reason}; it is tried once more, alone, after the others")
        self.again.append(task)
        self.open.discard(task.place)


def run(
    work: Work, jobs: Sequence[Sequence[str]], first: int, given: Mapping[str, Any], planned: "Cells"
) -> list[JobReturn]:
    """Run the cells of a sweep, after the trainings that several of them share."""
    from runner.launch.rest import Rest
    from runner.launch.shared import with_shared

    options = checked(Options, given)
    found = cells(work.config, jobs, first)
    missing = left(found)
    pool = Pool(work, min(options.workers, len(missing)))  # they import while this process plans

    def end() -> str:
        pool.end()
        return pool.lines.left_over()

    try:
        tasks = with_shared(planned, missing)
        pool.take(tasks, TaskLines(tasks, Rest(tasks, planned, options.workers)))
        with interruptible(end):
            pool.run(options.workers)
            pool.waiting = list(pool.again)
            pool.run(1)
    finally:
        pool.end()
    return returns(found)


def _serve(pipe: Connection, work: Work) -> None:
    """Do the tasks that come through a pipe, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all, and the launcher ends them
    import runner.pipeline  # noqa: F401  what the first task would import

    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        work.logged(task)
        try:
            pipe.send(None)
        except BrokenPipeError:  # an interrupted launcher does not wait for the answer
            return


def _how(code: int | None) -> str:
    """Return how a process ended, in words."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        memory = ", as the system does when the memory is full" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{memory}"
    return f"its process ended with exit code {code}"
