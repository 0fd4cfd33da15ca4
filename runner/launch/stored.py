"""Cells that a sweep need not run again, because the same command has made their results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf import Until
from runner.launch.notes import DIVERGED, DONE, FAILURE, NAME, STAYS, forget_sweep, note
from runner.launch.task import folder_of_cell
from runner.naming import names_own
from runner.results import Result, Results
from runner.say import say

if TYPE_CHECKING:
    import torch

# By the overrides of their cells.
Stored = Mapping[tuple[str, ...], Result]

# The beginning of the options of metrics.
METRICS = "evaluation.metrics."


def note_stored(config: DictConfig, jobs: Sequence[Sequence[str]]) -> Stored:
    """Note the cells of a sweep whose results are stored as ended: done, or diverged. Say how many they
    are, and return the results (see `stored`).

    Notes of an earlier sweep in the same folder are removed.
    """
    results = stored(config, jobs)
    forget_sweep(Path(config.hydra.sweep.dir))
    for number, job in enumerate(jobs):
        if (result := results.get(tuple(job))) is not None:
            _note(folder_of_cell(config, number), result)
    if results:
        diverged = sum(result.status != "done" for result in results.values())
        again = f", {diverged} of them diverged: {STAYS}" if diverged else ""
        say(f"{len(results)} of {len(jobs)} cells are stored, by this command and this commit{again}")
    return results


def _note(folder: Path, result: Result) -> None:
    note(folder, NAME, result.name)
    if result.status == "done":
        note(folder, DONE, "0")
    else:
        note(folder, DIVERGED, "")
        note(folder, FAILURE, f"{result.error} (found before, and the same again by this code)")


def stored(config: DictConfig, jobs: Sequence[Sequence[str]]) -> Stored:
    """Return the results of jobs that say all that their cells would say again.

    Such a result is of the same overrides and the same commit, without changed files then and now, and
    its artefacts are stored. A diverged one is also of the same device and version of torch, by which it
    diverges again.
    """
    from runner.plan.plan import device_of  # imports torch

    root = Path(config.paths.root)
    if config.hydra.searchpath or config.until is not Until.end:  # jobs do not name the search path
        return {}
    device = device_of(config.device)
    return {
        tuple(result.overrides): result
        for result in Results(root / "results").made_by({tuple(job) for job in jobs})
        if stands(result, device, config.threads)
        and all((root / "store" / stage / key).is_dir() for stage, key in result.artefacts)
    }


def stands(result: Result, device: "torch.device", threads: int) -> bool:
    """Return whether the code, and what else decides that a run diverges, is that of a result.

    Changed files, code without a commit, or the user's own configuration and classes may be other code
    each time.
    """
    from runner.provenance import code, provenance

    made, here, diverged = result.provenance["row"], code(), result.status == "diverged"
    # no metric makes a training diverge
    own = [each for each in filter(names_own, result.overrides) if not (diverged and METRICS in each)]
    if here["commit"] is None or here["dirty"] or own:
        return False
    if diverged:
        found = provenance(device, threads)
        here = {name: found[name] for name in (*here, "torch", "device", "threads", "machine")}
    return {name: made.get(name) for name in here} == here
