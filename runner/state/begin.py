"""The begin of a sweep: its cells are planned, its manifest is written, and stored cells are noted."""

from collections.abc import Sequence
from pathlib import Path

from hydra.types import HydraContext
from omegaconf import DictConfig

from runner.launch.stored import note_stored
from runner.naming import folders
from runner.state.cells import Cell, Cells, cells_of, of_sweep
from runner.state.manifest import Manifest, environment, listed
from runner.sweep import command


def begin(context: HydraContext, config: DictConfig, jobs: Sequence[Sequence[str]]) -> Cells:
    """Note the cells of a sweep whose results are stored, write its manifest into its folder, and return
    the other cells.

    Cells whose results are stored are not composed. Raise Hydra's errors for a cell that does not
    compose; one that is refused for another reason is listed with it.
    """
    results = note_stored(config, jobs)
    missing = [job for job in jobs if tuple(job) not in results]
    planned = {cell.overrides: cell for cell in cells_of(missing, of_sweep(context, config))}
    cells = [planned.get(tuple(job), Cell(tuple(job), None)) for job in jobs]
    here = environment(cells, results)
    found = listed(cells, results, folders(config.hydra))
    Manifest(command(), here, found, Path(config.hydra.sweep.dir)).write()
    return planned
