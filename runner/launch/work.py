"""Work: all that another process needs to do a task of a sweep."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, run_job, setup_globals
from hydra.types import HydraContext
from hydra.version import VersionBase
from omegaconf import DictConfig, open_dict

import conf  # noqa: F401  registers the schema
from runner.compose import Composer
from runner.launch.notes import LABEL, LOG, note, noted
from runner.launch.task import Shared, Task
from runner.signals import ENDING

if TYPE_CHECKING:
    from packaging.version import Version


class Work:
    """Does the tasks of one sweep, in any process that it is sent to."""

    def __init__(self, hydra_context: HydraContext, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config
        self.compose = Composer(hydra_context, config)

    def __getstate__(self) -> tuple[HydraContext, DictConfig, "Version | None"]:
        return self.hydra_context, self.config, VersionBase.instance().getbase()

    def __setstate__(self, state: tuple[HydraContext, DictConfig, "Version | None"]) -> None:
        """Arrive in another process: register what Hydra composes from there.

        Without its `version_base` Hydra changes to the folder of the cell, where relative paths mislead.
        """
        hydra_context, config, base = state
        VersionBase.instance().version_base = base
        Work.__init__(self, hydra_context, config)
        setup_globals()
        Plugins.instance()
        JobRuntime.instance().set("name", self.config.hydra.job.name)

    def composed(self, task: Task) -> DictConfig:
        """Return the configuration of a cell, or of the cell that a shared training belongs to."""
        config = self.compose(task.overrides)
        with open_dict(config):
            config.hydra.job.num = task.number
            config.hydra.job.id = str(task.number)
            config.hydra.sweep.subdir = str(task.number)
        return config

    def __call__(self, task: Task) -> None:
        """Do a task. Its folder notes how it ends. A signal lets a training keep its state first."""
        config = self.composed(task)
        with ENDING.handling():
            if task.shared is None:
                self._run(config)
            else:
                self._make(config, task, task.shared)

    def logged(self, task: Task) -> None:
        """Do a task, and append all output of this process to the task's log."""
        task.folder.mkdir(parents=True, exist_ok=True)
        with _appended(task.folder / LOG):
            self(task)

    def _run(self, config: DictConfig) -> None:
        from runner.sweep import execute

        run_job(
            hydra_context=self.hydra_context,
            task_function=execute,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def _make(self, config: DictConfig, task: Task, shared: Shared) -> None:
        from runner.launch.shared import make

        note(task.folder, LABEL, task.label)
        with noted(task.folder):
            HydraConfig.instance().set_config(config)
            make(config, shared)


@contextmanager
def _appended(log: Path) -> Iterator[None]:
    """Append all output of this process to a file, also that of libraries in C."""
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with log.open("ab", buffering=0) as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
