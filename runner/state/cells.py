"""Cells: the runs that a command means, each with its plan."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from omegaconf import DictConfig, OmegaConf

from conf import Run
from data.bounds import check_bounds
from data.errors import UserError
from runner.compose import composed, planned
from runner.plan import Plan

SEED = re.compile(r"seed=(\d+)")

# An interpolation that may refer to the seed.
READS_SEED = re.compile(r"\$\{[^}]*\bseed\b")

# The configuration of overrides, and the names of the chosen options by group.
Compose = Callable[[list[str]], tuple[DictConfig, Mapping[str, str]]]


@dataclass(frozen=True)
class Cell:
    """The overrides of one run, and its plan; or the sentence with which the run is refused."""

    overrides: tuple[str, ...]
    plan: Plan | None
    refused: str = ""


def cells_of(jobs: Iterable[Sequence[str]], compose: Compose = composed) -> list[Cell]:
    """Return the cells of a sweep's jobs. Raise Hydra's errors for overrides that do not compose."""
    planner = Planner(compose)
    return [planner.cell(tuple(job)) for job in jobs]


class Planner:
    """Plans jobs. Those that differ in their seeds alone are composed once, which takes most of the
    time."""

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self._known: dict[tuple[str, ...], Plan] = {}

    def cell(self, job: tuple[str, ...]) -> Cell:
        """Return the cell of a job."""
        try:
            return Cell(job, self._plan(job))
        except UserError as error:
            return Cell(job, None, str(error))

    def _plan(self, job: tuple[str, ...]) -> Plan:
        seeds = [found for text in job if (found := SEED.fullmatch(text))]
        rest = tuple(text for text in job if not SEED.fullmatch(text))
        if seeds and rest in self._known:
            plan, seed = self._known[rest], int(seeds[-1][1])
            check_bounds("", Run(seed=seed, threads=plan.threads, shadow=plan.shadow))
            return replace(plan, seed=seed)
        cfg, names = self.compose(list(job))
        plan = planned(cfg, names, job)
        if not READS_SEED.search(OmegaConf.to_yaml(cfg)):
            self._known[rest] = plan
        return plan
