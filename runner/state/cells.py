"""Cells: the runs that a command means, each with its plan."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hydra.types import HydraContext
from omegaconf import DictConfig

from conf import Run
from data.bounds import check_bounds
from data.errors import UserError
from runner.compose import Composer, composed, planned, reads_seed, without_hydra, without_seed
from runner.plan import Plan

# The configuration of overrides, and the names of the chosen options by group.
Compose = Callable[[list[str]], tuple[DictConfig, Mapping[str, str]]]


@dataclass(frozen=True)
class Cell:
    """The overrides of one run, and its plan; or the sentence with which the run is refused."""

    overrides: tuple[str, ...]
    plan: Plan | None
    refused: str = ""


# Cells by their overrides.
Cells = Mapping[tuple[str, ...], Cell]


def cells_of(jobs: Iterable[Sequence[str]], compose: Compose = composed) -> list[Cell]:
    """Return the cells of a sweep's jobs. Raise Hydra's errors for overrides that do not compose."""
    planner = Planner(compose)
    return [planner.cell(tuple(job)) for job in jobs]


def of_sweep(context: HydraContext, config: DictConfig) -> Compose:
    """Return the composition of a sweep's cells; `config` is that of the sweep."""

    composer = Composer(context, config)
    return lambda overrides: without_hydra(composer(overrides))


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
        rest, seed = without_seed(job)
        if seed is not None and rest in self._known:
            plan = self._known[rest]
            check_bounds("", Run(seed=seed, threads=plan.threads, shadow=plan.shadow))
            return replace(plan, seed=seed)
        cfg, names = self.compose(list(job))
        plan = planned(cfg, names, job)
        if not reads_seed(cfg):
            self._known[rest] = plan
        return plan
