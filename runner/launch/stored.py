"""Cells that a sweep need not run again, because the same command has made their results."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from conf import Until
from runner.launch.notes import DONE, NAME, note
from runner.launch.task import Task
from runner.say import say


def missing(config: DictConfig, jobs: Sequence[Sequence[str]]) -> list[int]:
    """Return the numbers of the jobs without a result that says all that they would say again.

    Such a result is of the same overrides and the same commit, without changed files then and now, and
    its artefacts are stored. A configuration or code of the user's own has no commit that tells.
    """
    names = _names(config)
    return [number for number, job in enumerate(jobs) if tuple(job) not in names]


def without_stored(config: DictConfig, cells: Sequence[Task]) -> list[Task]:
    """Return the cells that are missing. The others are noted as done, and their number is told."""
    names = _names(config)
    found = [cell for cell in cells if cell.overrides not in names]
    for cell in cells:
        if cell.overrides in names:
            note(cell.folder, NAME, names[cell.overrides])
            note(cell.folder, DONE, "0")
    if len(found) < len(cells):
        stored = len(cells) - len(found)
        say(f"{stored} of {len(cells)} cells are stored, by this command and this commit")
    return found


def _names(config: DictConfig) -> dict[tuple[str, ...], str]:
    """Return the names of the results that need not be made again, by their overrides."""
    from runner.provenance import code  # imports torch
    from runner.results import Results

    here = code()
    root = Path(config.paths.root)
    own = config.hydra.searchpath or config.until is not Until.end
    if own or here["commit"] is None or here["dirty"] or not (root / "results").is_dir():
        return {}
    results = Results(root / "results")
    return {
        tuple(result.overrides): result.name
        for folder in (root / "results").iterdir()
        if any(folder.glob("*.json"))
        for result in results.named(folder.name)
        if result.status == "done"
        and {name: result.provenance["row"].get(name) for name in here} == here
        and all((root / "store" / stage / key).is_dir() for stage, key in result.artefacts)
    }
