"""Cells of a sweep as tasks of Ray, on this machine or on several that share their files.

A process or a machine that dies takes its cells with it and no other one. They begin again.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.utils import JobReturn

from data.bounds import NUMBER, THREADS
from data.errors import UserError
from runner.errors import message_of
from runner.launch.interrupt import interruptible
from runner.launch.lines import TaskLines
from runner.launch.notes import fail, has_begun, outcome
from runner.launch.options import checked
from runner.launch.task import Task, cells, left, returns
from runner.launch.work import Work

if TYPE_CHECKING:  # a plan imports torch
    from runner.state.cells import Cells

# Seconds between two looks, and those that cells which are told to end may take to keep their state.
PAUSE, PATIENCE = 1.0, 20.0

# Bytes of memory for what processes send each other, of which a sweep needs little: about Ray's least.
OBJECTS = 80 * 2**20

# The cure where no Ray could be started, or none was found.
START = "say it again when the machine has less to do"
JOIN = "start one by `ray start --head`, or leave the option out"

# Ray's errors of a task whose process has gone, in words.
GONE = {
    "WorkerCrashedError": "its process died",
    "OutOfMemoryError": "Ray ended its process, since the memory of its machine was full",
    "NodeDiedError": "its machine died",
}


@dataclass(frozen=True)
class Options:
    """Options of the launcher, which conf/hydra/launcher/ray.yaml explains."""

    address: str
    num_cpus: Annotated[int, THREADS]
    num_gpus: Annotated[float, NUMBER]
    max_retries: Annotated[int, NUMBER]


class Pool:
    """The tasks of a sweep: those that wait for others, and those that Ray has been given."""

    def __init__(
        self, ray: Any, work: Work, tasks: Sequence[Task], options: Options, lines: TaskLines
    ) -> None:
        self.ray = ray
        self.lines = lines
        self.waiting = list(tasks)
        self.given: dict[Any, Task] = {}
        self.begun: set[Task] = set()
        self.died: Counter[Task] = Counter()
        self.max_retries = options.max_retries
        self.work = ray.put(work)
        self.remote = ray.remote(num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_retries=0)(
            _do
        )

    def run(self) -> None:
        """Do all tasks, each once those that it waits for have ended."""
        while self.waiting or self.given:
            self._give()
            ended, _ = self.ray.wait(list(self.given), timeout=PAUSE)
            self._tell_of_begun()
            for reference in ended:
                self._ended(reference, self.given.pop(reference))

    def cancel(self) -> str:
        """End all tasks, which may keep their state, and return how many there were."""
        for reference in self.given:
            self.ray.cancel(reference)
        if self.given:
            self.ray.wait(list(self.given), num_returns=len(self.given), timeout=PATIENCE)
        return self.lines.left_over()

    def _give(self) -> None:
        """Give Ray the tasks that wait for no other one."""
        open_ = {task.place for task in (*self.waiting, *self.given.values())}
        for task in [task for task in self.waiting if not task.after & open_]:
            self.waiting.remove(task)
            self.given[self.remote.remote(self.work, task, Path.cwd())] = task

    def _tell_of_begun(self) -> None:
        for task in self.given.values():
            if task not in self.begun and has_begun(task.folder):
                self.begun.add(task)
                self.lines.begun(task)

    def _ended(self, reference: Any, task: Task) -> None:
        """Tell how a task has ended. One whose process has gone is given to Ray again."""
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            reason = GONE.get(type(error).__name__)
            if reason is not None and self.died[task] < self.max_retries:
                self.died[task] += 1
                self.lines.died(task, f"{reason}; it begins again")
                self.waiting.append(task)
                return
            if outcome(task.folder) is None:
                fail(task.folder, reason or _reason(error))
        self.lines.ended(task)


def run(
    work: Work, jobs: Sequence[Sequence[str]], first: int, given: Mapping[str, Any], planned: "Cells"
) -> list[JobReturn]:
    """Run the cells of a sweep, after the trainings that several of them share.

    Raise UserError without Ray, or if no machine of it has room for a cell.
    """
    options = checked(Options, given)
    ray = module()
    from runner.launch.rest import Rest  # imports torch: what is refused is refused before
    from runner.launch.shared import with_shared

    found = cells(work.config, jobs, first)
    tasks = with_shared(planned, left(found))
    if tasks:
        _connect(ray, options)
        try:
            _require_room(ray, options)
            pool = Pool(ray, work, tasks, options, TaskLines(tasks, Rest(tasks, planned)))
            with interruptible(pool.cancel):
                pool.run()
        finally:
            ray.shutdown()
    return returns(found)


def module() -> Any:
    """Return the module of Ray. Raise UserError if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UserError('hydra/launcher=ray needs Ray: pip install -e ".[ray]"') from error
    return ray


def _do(work: Work, task: Task, folder: Path) -> None:
    """Do a task in a process of Ray, in the folder that the sweep was started in."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing on one of Ray's machines: they must share their files")
    os.chdir(folder)
    work.logged(task)


def _connect(ray: Any, options: Options) -> None:
    """Start or find a Ray. Raise UserError if there is none."""
    own = options.address == "local"
    more = {"object_store_memory": OBJECTS, "include_dashboard": False} if own else {}
    try:
        ray.init(options.address, log_to_driver=False, logging_level=logging.ERROR, **more)
    except Exception as error:  # Ray raises Exception itself if a busy machine takes too long
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"hydra.launcher.address={options.address}: Ray does not answer ({reason}): "
            f"{START if own else JOIN}"
        ) from error


def _require_room(ray: Any, options: Options) -> None:
    """Raise UserError if no machine has what a cell reserves: Ray would wait for one that has."""
    wanted = {"CPU": options.num_cpus, "GPU": options.num_gpus}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(has.get(kind, 0) >= number for kind, number in wanted.items()) for has in machines):
        raise UserError(
            f"no machine of this Ray has hydra.launcher.num_cpus={options.num_cpus} and "
            f"num_gpus={options.num_gpus:g}: set them to what one has (num_cpus is `threads` at first)"
        )


def _reason(error: Exception) -> str:
    """Return in words why a task failed outside its cell."""
    cause = getattr(error, "cause", None) or error
    return message_of(cause) or str(cause).strip().partition("\n")[0]
