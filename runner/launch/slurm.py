"""Cells of a sweep as job arrays of Slurm, submitted by submitit and watched without accounting."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.utils import JobReturn

from data.bounds import COUNT, NUMBER
from data.errors import UserError
from runner.launch import queue
from runner.launch.interrupt import interruptible
from runner.launch.lines import TaskLines
from runner.launch.notes import FAILURE, link_log, outcome
from runner.launch.options import checked
from runner.launch.task import Task, cells, left, returns
from runner.launch.watch import Job, Watch
from runner.launch.work import Work
from runner.naming import as_typed, choices, folders, run_name
from runner.say import say

if TYPE_CHECKING:  # a plan imports torch
    from runner.state.cells import Cells

# Overrides of a cell that its table is made with.
KEPT = ("experiment=", "scale=", "paths.", "table.")


@dataclass(frozen=True)
class Options:
    """Options of the launcher, which conf/hydra/launcher/slurm.yaml explains."""

    cells_per_job: Annotated[int, COUNT]
    array_parallelism: Annotated[int, COUNT]
    wait: bool
    partition: str | None
    account: str | None
    timeout_min: Annotated[int, COUNT]
    cpus_per_task: Annotated[int, COUNT]
    gpus_per_node: Annotated[int, NUMBER] | None
    mem_gb: Annotated[int, COUNT] | None
    requeue: bool
    signal_delay_s: Annotated[int, COUNT]
    max_num_timeout: Annotated[int, NUMBER]
    name: str
    setup: list[str] | None
    additional_parameters: dict[str, Any] = field(default_factory=dict)


class BatchJob:
    """One job: does several tasks in turn, and fails if one of them does.

    Hydra returns a failed cell as a value, so that Slurm would call the job completed.
    """

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, tasks: Sequence[Task]) -> None:
        """Do the tasks that have not ended before the job was queued again."""
        for task in tasks:
            if outcome(task.folder) is None:
                self.work(task)
        if any((task.folder / FAILURE).exists() for task in tasks):
            sys.exit(1)

    def checkpoint(self, tasks: Sequence[Task]) -> Any:
        """Return what submitit queues again after a time limit or preemption: the same job."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, tasks)


def run(
    work: Work, jobs: Sequence[Sequence[str]], first: int, given: Mapping[str, Any], planned: "Cells"
) -> list[JobReturn]:
    """Submit the cells of a sweep, after the trainings that several of them share, and watch them.

    Raise UserError without submitit, and errors that have a sentence if Slurm refuses the jobs.
    """
    options = checked(Options, given)
    submission = Submission(work, options, Path(work.config.hydra.sweep.dir).absolute() / "slurm")
    from runner.launch.rest import Rest  # imports torch: what is refused is refused before
    from runner.launch.shared import with_shared

    found = cells(work.config, jobs, first)
    tasks = with_shared(planned, left(found))
    if not tasks:
        return returns(found)
    with interruptible(submission.cancel):
        submission.submit(tasks)
        if options.wait:
            lines = TaskLines(tasks, Rest(tasks, planned))
            Watch(submission.jobs, lines, options.timeout_min).until_the_end()
        else:
            say(_leave(work, found, submission))
    return returns(found)


class Submission:
    """The jobs of a sweep, submitted in waves: the tasks of each wait for those of the one before."""

    def __init__(self, work: Work, options: Options, folder: Path) -> None:
        try:
            import submitit
        except ImportError as error:
            install = 'pip install -e ".[cluster]"'
            raise UserError(f"hydra/launcher=slurm needs submitit: {install}") from error
        self.work = work
        self.options = options
        self.folder = folder
        self.jobs: list[Job] = []
        self.executor = submitit.AutoExecutor(
            folder / "%j", cluster="slurm", slurm_max_num_timeout=options.max_num_timeout
        )

    @property
    def arrays(self) -> list[str]:
        """The ids of all arrays and single jobs, in the order of their submission."""
        return list(dict.fromkeys(job.array for job in self.jobs))

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submit all tasks. If Slurm refuses some, cancel the others and raise its refusal."""
        size = queue.largest_array()
        before: list[str] = []
        try:
            for wave in waves(tasks):
                number = self.options.cells_per_job
                groups = [tuple(wave[at : at + number]) for at in range(0, len(wave), number)]
                done = len(self.jobs)
                for at in range(0, len(groups), size):
                    self._submit_array(groups[at : at + size], before)
                before = list(dict.fromkeys(job.array for job in self.jobs[done:]))
        except Exception:
            self.cancel()
            raise

    def cancel(self) -> str:
        """Cancel all jobs, and return what was done."""
        if not self.jobs:
            return "no job was submitted"
        queue.cancel(self.arrays)
        return f"cancelled Slurm's jobs {', '.join(self.arrays)}"

    def _submit_array(self, groups: Sequence[tuple[Task, ...]], before: Sequence[str]) -> None:
        options = self.options
        more = {**options.additional_parameters, **({"requeue": True} if options.requeue else {})}
        if before:
            more["dependency"] = f"afterany:{':'.join(before)}"
        self.executor.update_parameters(
            name=options.name,
            timeout_min=options.timeout_min,
            cpus_per_task=options.cpus_per_task,
            stderr_to_stdout=True,
            slurm_array_parallelism=options.array_parallelism,
            slurm_signal_delay_s=options.signal_delay_s,
            slurm_additional_parameters=more,
            **_given(gpus_per_node=options.gpus_per_node, mem_gb=options.mem_gb),
            **_given(slurm_partition=options.partition, slurm_account=options.account),
            **_given(slurm_setup=options.setup),
        )
        for job, group in zip(self.executor.map_array(BatchJob(self.work), groups), groups, strict=True):
            self.jobs.append(Job(job.job_id, job.job_id.partition("_")[0], group))
            for task in group:
                link_log(task.folder, job.paths.stdout)


def waves(tasks: Sequence[Task]) -> list[list[Task]]:
    """Return the tasks in waves: each task waits for tasks of earlier waves alone, and all cells are in
    the last one."""
    depth: dict[str, int] = {}
    for task in tasks:  # in an order in which no task waits for a later one
        depth[task.place] = 1 + max((depth[place] for place in task.after), default=-1)
    last = max(depth.values())
    depth |= {task.place: last for task in tasks if task.shared is None}
    found = [[task for task in tasks if depth[task.place] == at] for at in range(last + 1)]
    return [wave for wave in found if wave]


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def reports(work: Work, cells: Sequence[Task]) -> list[str]:
    """Return the command of every table that these cells make, which tells their state, too."""
    first: dict[str, Task] = {}
    for cell in cells:
        config = work.composed(cell)
        first.setdefault(run_name(config.name, choices(config.hydra)), cell)
    words = ["python", "-m", "runner.report", *folders(work.config.hydra)]
    kept = {
        name: [text for text in cell.overrides if text.startswith(KEPT)] for name, cell in first.items()
    }
    return [shlex.join([*words, *kept[name], as_typed("name", name)]) for name in sorted(kept)]


def _leave(work: Work, found: Sequence[Task], submission: Submission) -> str:
    """Return what a user must know whose sweep goes on without this process."""
    ids = ",".join(submission.arrays)
    number = sum(task.shared is None for job in submission.jobs for task in job.tasks)
    return "\n".join(
        [
            f"submitted {number} cells; their logs and notes are in {submission.folder.parent}",
            f"state: squeue -j {ids}",
            *(f"state and table of its cells: {report}" for report in reports(work, found)),
            f"end it: scancel {ids.replace(',', ' ')}",
        ]
    )
