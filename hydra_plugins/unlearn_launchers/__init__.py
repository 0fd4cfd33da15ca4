"""The launchers that conf/hydra/launcher chooses between, and their sweeper.

Hydra accepts these only from the namespace `hydra_plugins`, and imports it at every start, so the
work is done by `runner.launch`, which is imported when a sweep begins.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:  # a plan imports torch
    from runner.state.cells import Cells


class Planned(Launcher):
    """A launcher that knows the plans of its sweep's cells, which the sweeper has made."""

    planned: "Cells" = MappingProxyType({})


class Sweeper(BasicSweeper):
    """Hydra's own sweeper, which plans every cell, and writes and notes what the sweep is to make."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every missing cell, so that a fault ends the sweep before its first cell. Write the
        manifest of the sweep, and note the cells that are stored."""
        from runner.state.begin import begin

        assert self.config is not None and self.hydra_context is not None and self.overrides is not None
        if self.batch_index == 1:  # of the first batch, and Hydra has counted it
            jobs = [job for each in self.overrides for job in each]
            planned = begin(self.hydra_context, self.config, jobs)
            if isinstance(self.launcher, Planned):
                self.launcher.planned = planned


class SerialLauncher(BasicLauncher, Planned):
    """Runs the cells of a sweep one after another, in this process."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run every cell, between a line that it begins and a line that it has ended."""
        from runner.launch.lines import TaskLines
        from runner.launch.rest import Rest
        from runner.launch.task import cells, left, returns

        assert self.config is not None
        tasks = cells(self.config, job_overrides, initial_job_idx)
        missing = left(tasks)
        lines = TaskLines(missing, Rest(missing, self.planned), here=True)
        for task in missing:
            lines.begun(task)
            super().launch([list(task.overrides)], task.number)
            lines.ended(task)
        return returns(tasks)


class LocalLauncher(Planned):
    """Runs the cells of a sweep in several processes of this machine."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Remember all that a process needs to run a cell."""
        from runner.launch.work import Work

        self.work = Work(hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run every cell to its end, however its process ends."""
        from runner.launch.local import run

        return run(self.work, job_overrides, initial_job_idx, self.options, self.planned)


class SlurmLauncher(LocalLauncher):
    """Submits the cells of a sweep to Slurm as job arrays."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Submit every cell and, unless `wait` is false, watch them to their ends."""
        from runner.launch.slurm import run

        return run(self.work, job_overrides, initial_job_idx, self.options, self.planned)


class RayLauncher(LocalLauncher):
    """Gives the cells of a sweep to Ray as tasks."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run every cell to its end, on the machines of a Ray."""
        from runner.launch.ray import run

        return run(self.work, job_overrides, initial_job_idx, self.options, self.planned)
