"""Files of tuned options, with the search that found them."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from omegaconf import DictConfig, OmegaConf

import conf
from data.disk import replacing
from data.errors import UserError
from runner.compose import composed
from runner.naming import SEARCHED, SEARCHPATH
from runner.provenance import provenance
from runner.tune.search import Search, Trial
from runner.tune.space import overrides_of

# The longest line.
WIDTH = 105

# Options that say where files lie and who is told, and not what is found.
PLACES = ("paths.", "data.root=", "tune.folder=", "tracking=", "tracking.")


def write(search: Search, trials: Sequence[Trial], command: Sequence[str]) -> Path:
    """Write the method's options in the best trial to the file of a search, and return its path.

    Options that have the values of the method's YAML are left out. `command` are the overrides of the
    search. Raise UserError if every trial failed.
    """
    best = best_of(search, trials)
    tuned = _options(search, best)
    head = ["# @package _global_", *_told(search, trials, best), *_command(command)]
    search.path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(search.path) as scratch:
        scratch.write_text("\n".join([*head, OmegaConf.to_yaml({"method": tuned})]))
    return search.path


def taken_up(path: Path) -> str:
    """Return the options with which runs take up the file of a search, and those beside it, as one types
    them: with the folder that holds `tuned`, if it is not this program's."""
    holder = path.resolve().parents[2]
    mine = [] if holder == conf.FOLDER.resolve() else [f"{SEARCHPATH}=[file://{holder}]"]
    return shlex.join([*mine, SEARCHED])


def _options(search: Search, best: Trial) -> dict[str, Any]:
    """Return the options of a trial's method that are not those of its YAML, searched or set by the
    command or its preset: runs take up the point that was tried."""
    changed = {name: value for name, value in best.values.items() if value != search.own[name]}
    places = [text for text in search.overrides if text.startswith(f"{SEARCHPATH}=")]
    tried, _ = composed([*search.overrides, *overrides_of(changed)])
    defaults, _ = composed([f"method={search.path.stem}", *places])
    own = _written(defaults)
    return {
        name: value for name, value in _written(tried).items() if name not in own or value != own[name]
    }


def _written(cfg: DictConfig) -> dict[str, Any]:
    """Return the method's options as they are written: an interpolation stays one."""
    found = OmegaConf.to_container(cfg.method, resolve=False)
    assert isinstance(found, dict)
    return {str(name): value for name, value in found.items()}


def best_of(search: Search, trials: Sequence[Trial]) -> Trial:
    """Return the trial of the best objective, the first of several. Raise UserError if all failed."""
    done = [trial for trial in trials if trial.score is not None]
    if not done:
        raise UserError(f"every trial failed, the last one with: {trials[-1].failure}")
    best = min if search.direction == "minimize" else max
    return best(done, key=lambda trial: trial.score or 0.0)


def _told(search: Search, trials: Sequence[Trial], best: Trial) -> list[str]:
    """Return the lines of comment that say what was searched, and with what success."""
    tune, own = search.tune, trials[0].score
    failed = sum(trial.score is None for trial in trials)
    request = " ".join(f"scenario.{name}={value}" for name, value in tune.validation.items())
    made = provenance(search.plan.device, search.plan.threads)
    sentences = [
        f"The best of {len(trials)} trials by {tune.objective}: {best.score:.4g}.",
        f"The method's own options: {'failed' if own is None else f'{own:.4g}'}.",
        f"Failed trials: {failed}.",
        f"Validation request, which no table reports: {request}.",
        f"Seeds {tune.seeds}, sampler seed {tune.sampler_seed}, commit {made['commit']}"
        f"{' with uncommitted changes' if made['dirty'] else ''}.",
    ]
    return _comment(" ".join(sentences), "# ", "# ")


def _command(overrides: Sequence[str]) -> list[str]:
    """Return the command of the search as lines of comment, without the places of one machine."""
    kept = [text for text in overrides if not text.lstrip("+").startswith(PLACES)]
    return _comment(shlex.join(["python", "-m", "runner.tune", *kept]), "#   ", "#     ")


def _comment(text: str, first: str, rest: str) -> list[str]:
    """Wrap a text between its words into lines that start with `first` and `rest`."""
    return wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
