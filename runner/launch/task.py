"""Tasks: the cells of a sweep, and the shared trainings that several of them wait for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from runner.launch.notes import LABEL, note, outcome


@dataclass(frozen=True)
class Shared:
    """A training that several cells wait for: of the original, with its records, if `reference` is None,
    else of the retrained model with that seed."""

    reference: int | None


@dataclass(frozen=True)
class Task:
    """A piece of work of a sweep.

    `place` is its place among its kind, as in 2/6. A cell has its number in the sweep and its folder. A
    shared training has the overrides and the number of a cell that waits for it, and a folder of its
    own. `after` holds the places of the shared trainings that it waits for itself.
    """

    place: str
    label: str
    number: int
    overrides: tuple[str, ...]
    folder: Path
    shared: Shared | None = None
    after: frozenset[str] = field(default_factory=frozenset)


def cells(config: DictConfig, jobs: Sequence[Sequence[str]], first: int) -> list[Task]:
    """Return the cells of a sweep, and note what they are called."""
    found = [
        Task(f"{place}/{len(jobs)}", label, number, tuple(overrides), folder_of_cell(config, number))
        for place, (number, overrides, label) in enumerate(
            zip(range(first, first + len(jobs)), jobs, labels(jobs), strict=True), start=1
        )
    ]
    for task in found:
        note(task.folder, LABEL, task.label)
    return found


def left(cells: Sequence[Task]) -> list[Task]:
    """Return the cells that have not ended: the others were stored when the sweep began."""
    return [cell for cell in cells if outcome(cell.folder) is None]


def folder_of_cell(config: DictConfig, number: int) -> Path:
    """Return the folder of a sweep's cell by its number."""
    return Path(config.hydra.sweep.dir).absolute() / str(number)


def labels(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return the overrides that distinguish each job from the others."""
    common = set(jobs[0]).intersection(*jobs)
    return [" ".join(text for text in job if text not in common) or "the run" for job in jobs]


def returns(cells: Sequence[Task]) -> list[JobReturn]:
    """Return what Hydra expects of cells that have ended elsewhere.

    A failure is noted in the cell's folder. Hydra would end the sweep at it, before the table.
    """
    return [JobReturn(overrides=cell.overrides, status=JobStatus.COMPLETED) for cell in cells]
