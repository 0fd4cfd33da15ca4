"""Cells that a sweep need not run again, because the same command has made their results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from conf import Until
from runner.launch.notes import DONE, FAILURE, NAME, note
from runner.launch.task import Task
from runner.results import Result, Results
from runner.say import say

# By the overrides of their cells.
Stored = Mapping[tuple[str, ...], Result]


def missing(config: DictConfig, jobs: Sequence[Sequence[str]]) -> list[int]:
    """Return the numbers of the jobs that are not stored (see `stored`)."""
    found = stored(config)
    return [number for number, job in enumerate(jobs) if tuple(job) not in found]


def without_stored(config: DictConfig, cells: Sequence[Task]) -> list[Task]:
    """Return the cells that are missing. The others are noted as done, or as diverged, and are told."""
    results = stored(config)
    found = [cell for cell in cells if cell.overrides not in results]
    diverged = 0
    for cell in cells:
        if (result := results.get(cell.overrides)) is None:
            continue
        note(cell.folder, NAME, result.name)
        if result.status == "done":
            note(cell.folder, DONE, "0")
        else:
            diverged += 1
            note(cell.folder, FAILURE, f"{result.error} (found before, and the same again by this code)")
    if len(found) < len(cells):
        number = len(cells) - len(found)
        again = f", {diverged} of them diverged" if diverged else ""
        say(f"{number} of {len(cells)} cells are stored, by this command and this commit{again}")
    return found


def stored(config: DictConfig) -> Stored:
    """Return the results that say all that their cells would say again.

    Such a result is of the same overrides and the same commit, without changed files then and now, and
    its artefacts are stored. A diverged one is also of the same device and version of torch, by which it
    diverges again. A configuration or code of the user's own has no commit that tells.
    """
    from runner.provenance import code  # imports torch

    root, here = Path(config.paths.root), code()
    own = config.hydra.searchpath or config.until is not Until.end
    if own or here["commit"] is None or here["dirty"] or not (root / "results").is_dir():
        return {}
    results = Results(root / "results")
    return {
        tuple(result.overrides): result
        for folder in (root / "results").iterdir()
        if any(folder.glob("*.json"))
        for result in results.named(folder.name)
        if _stands(config, result)
        and all((root / "store" / stage / key).is_dir() for stage, key in result.artefacts)
    }


def _stands(config: DictConfig, result: Result) -> bool:
    """Return whether the code, and what else decides that a run diverges, is that of a result."""
    from runner.plan.plan import device_of
    from runner.provenance import code, provenance

    made, here = result.provenance["row"], code()
    if result.status == "diverged":
        found = provenance(device_of(config.device), config.threads)
        here = {name: found[name] for name in (*here, "torch", "device", "threads", "machine")}
    return {name: made.get(name) for name in here} == here
