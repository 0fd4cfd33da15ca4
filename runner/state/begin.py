"""The begin of a sweep: its cells are planned, and its manifest is written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from runner.launch.stored import stored
from runner.naming import choices
from runner.state.cells import Cell, cells_of
from runner.state.manifest import Manifest, environment, listed
from runner.sweep import command


def write_manifest(context: HydraContext, config: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    """Write the manifest of a sweep into its folder.

    Cells whose results are stored are not composed. Raise Hydra's errors for a cell that does not
    compose; one that is refused for another reason is listed with it.
    """

    def compose(overrides: list[str]) -> tuple[DictConfig, Mapping[str, str]]:
        cfg = context.config_loader.load_sweep_config(config, overrides)
        names = choices(cfg.hydra)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, names

    results = stored(config)
    planned = {cell.overrides: cell for cell in cells_of(_missing(jobs, results), compose)}
    cells = [planned.get(tuple(job), Cell(tuple(job), None)) for job in jobs]
    here = environment(cells, results)
    Manifest(command(), here, listed(cells, results), Path(config.hydra.sweep.dir)).write()


def _missing(
    jobs: Sequence[Sequence[str]], results: Mapping[tuple[str, ...], object]
) -> list[Sequence[str]]:
    return [job for job in jobs if tuple(job) not in results]
