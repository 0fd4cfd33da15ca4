"""Slurm's queue: the states of jobs, without accounting, and why a job ended, in words."""

import re
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

# States of jobs that have ended. Slurm remembers them for MinJobAge, which is 300 s by default.
FINAL = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}

# Reasons for which jobs wait their turn, as all jobs do.
ORDINARY = {"None", "Resources", "Priority", "Dependency", "JobArrayTaskLimit", "Cleaning"}

# Why a job ended, by its state, and the cure.
AGAIN = "the same command goes on from what is stored"
ENDS = {
    "TIMEOUT": "ran into its time limit of {limit} min: {again}, or raise hydra.launcher.timeout_min",
    "DEADLINE": "would have met its deadline: {again}",
    "OUT_OF_MEMORY": "was killed for its memory: raise hydra.launcher.mem_gb",
    "NODE_FAIL": "lost its node: {again}",
    "BOOT_FAIL": "lost its node, which did not start: {again}",
    "PREEMPTED": "was preempted, and not queued again: {again}",
    "CANCELLED": "was cancelled or killed by somebody, or by Slurm: {again}",
    "COMPLETED": "ended without a word",
}


# How Slurm says in a job's log that it killed a step for its memory, which not every job's state tells.
OVER_MEMORY = re.compile(
    r"^slurmstepd.*(exceeded.* memory limit|oom.kill)", re.IGNORECASE | re.MULTILINE
)

# How submitit says that a job met its limit once too often. To Slurm the job is completed.
OVER_TIME = re.compile(r"Job not requeued because: timed-out")

# A shell's exit code is this much and the number of the signal that ended its program.
SIGNALLED = 128


@dataclass(frozen=True)
class JobState:
    """The state of a job: Slurm's word, why it waits, and its exit code and the signal that ended it."""

    word: str
    reason: str = "None"
    exit: str = "0:0"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.word in FINAL


# The state of a job that Slurm no longer knows.
FORGOTTEN = JobState("forgotten")


def states(job: str) -> dict[str, JobState] | None:
    """Return the state of every task of an array, or of a job, by its id; None if Slurm does not answer.

    The answer of a job that Slurm no longer knows is empty.
    """
    shown = _answer("scontrol", "show", "job", "--oneliner", job)
    if shown is None:
        listed = _answer(
            "squeue", "--noheader", "--array", "--states=all", "--job", job, "--format=%i %T %r"
        )
        return None if listed is None else _from_squeue(listed)
    return {name: state for line in shown.splitlines() for name, state in _from_scontrol(line)}


def largest_array() -> int:
    """Return the number of tasks that an array may have, by the cluster's configuration."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _answer("scontrol", "show", "config") or "")
    return int(found[1]) if found else 1001  # Slurm's default


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs and arrays."""
    subprocess.run(["scancel", *jobs], capture_output=True, check=False)


def why(job: str, state: JobState, limit: float, log: str) -> str:
    """Return why a job ended without a note of its own.

    `limit` is its time limit in minutes, and `log` the text of its log.
    """
    code, number = (int(part) for part in state.exit.split(":"))
    number = number or max(code - SIGNALLED, 0)
    if OVER_MEMORY.search(log):
        text = ENDS["OUT_OF_MEMORY"]
    elif (word := "TIMEOUT" if OVER_TIME.search(log) else state.word) in ENDS:
        text = ENDS[word].format(limit=f"{limit:g}", again=AGAIN)
    elif state is FORGOTTEN:
        text = f"is no longer known to Slurm: {AGAIN}"
    elif number:
        memory = ", as the system does when the memory is full: raise hydra.launcher.mem_gb"
        text = f"was killed by signal {number}{memory if number == signal.SIGKILL else ''}"
    else:
        text = f"ended with exit code {code}"
    return f"Slurm's job {job} {text}"


def _answer(*command: str) -> str | None:
    """Return what one of Slurm's programs prints; None if it fails, and "" if it knows no such job."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return done.stdout
    return "" if "Invalid job id" in done.stderr else None


def _from_scontrol(line: str) -> Iterable[tuple[str, JobState]]:
    """Yield the tasks of a line: those of an array that wait share one."""
    found = dict(re.findall(r"(\w+)=(\S*)", line))
    state = JobState(found["JobState"], found["Reason"], found["ExitCode"])
    if "ArrayTaskId" not in found:
        yield found["JobId"], state
        return
    for part in found["ArrayTaskId"].partition("%")[0].split(","):
        low, _, high = part.partition("-")
        for task in range(int(low), int(high or low) + 1):
            yield f"{found['ArrayJobId']}_{task}", state


def _from_squeue(listed: str) -> dict[str, JobState]:
    lines = (line.split(maxsplit=2) for line in listed.splitlines())
    return {job: JobState(word, reason) for job, word, reason in lines}
