"""The names of the chosen options, and the name of a run's results."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data.disk import LONGEST_NAME
from data.errors import UserError

# The key of an option's words in its YAML file, and the groups that have them.
TITLE = "_title_"
TITLED = ("dataset", "model", "scenario", "method")

# The group of tuned options, whose files are optional: a method may have none.
TUNED = "tuned"

# The override that chooses the file of each method, if there is one.
SEARCHED = "tuned=${dataset}_${model}/${method}"

# The option that names folders of the user's own configuration.
SEARCHPATH = "hydra.searchpath"

# The scale that shrinks nothing.
WHOLE = "paper"

# The most bytes of a name. It leaves room for what is added to it: "_tuning", the kind and the suffix of
# a table or a figure, and the mark of a file that is being written.
LONGEST = LONGEST_NAME - 75


def choices(hydra: Any) -> dict[str, str]:
    """Return the names of the chosen options by group, from Hydra's own configuration.

    Groups within groups (`hydra/launcher`), groups within an option (`training@pretrained.training`) and
    groups without a choice are left out, and so are tuned options that nobody has searched.
    """
    chosen = OmegaConf.to_container(hydra.runtime.choices)
    assert isinstance(chosen, dict)
    names = {
        str(group): str(name)
        for group, name in chosen.items()
        if not {"/", "@"} & set(str(group)) and name not in (None, "null", "none")
    }
    if TUNED in names and not _has(hydra.runtime.config_sources, f"{TUNED}/{names[TUNED]}.yaml"):
        del names[TUNED]
    return names


def _has(sources: Any, file: str) -> bool:
    """Return whether one of the places that Hydra composes from has a file."""
    folders = [
        Path(source.path) if source.schema == "file" else files(source.path)
        for source in sources
        if source.schema in ("file", "pkg")
    ]
    return any((folder / file).is_file() for folder in folders)


def given(hydra: Any) -> list[str]:
    """Return the overrides of a job, from Hydra's own configuration, as one types them to run it again:
    with the folders of the user's own configuration, if it names any."""
    task = OmegaConf.to_container(hydra.overrides.task)  # with the ${…} that they have
    assert isinstance(task, list)
    return [*folders(hydra), *task]


def command_of(overrides: Sequence[str]) -> str:
    """Return the command of a run with these overrides, as one types it in a shell."""
    return python_path(overrides) + shlex.join(["python", "-m", "runner", *overrides])


def as_typed(option: str, value: str) -> str:
    """Return an override as Hydra reads it: a value of other than plain characters in quotes."""
    if re.fullmatch(r"[\w./-]+", value, re.ASCII):
        return f"{option}={value}"
    quoted = value.replace("'", r"\'")
    return f"{option}='{quoted}'"


def python_path(overrides: Sequence[str]) -> str:
    """Return what a command begins with whose overrides may name classes that PYTHONPATH finds: its
    setting here, if it has one."""
    path = os.environ.get("PYTHONPATH")
    return f"PYTHONPATH={shlex.quote(path)} " if path and any(map(names_own, overrides)) else ""


def folders(hydra: Any) -> list[str]:
    """Return the override that names folders of the user's own configuration, if there is one."""
    found = [text for text in hydra.overrides.hydra if text.lstrip("+").startswith(f"{SEARCHPATH}=")]
    return [str(text) for text in found[-1:]]


def names_own(override: str) -> bool:
    """Return whether an override names a configuration or a class that may be the user's own."""
    option = override.partition("=")[0].lstrip("+")
    return option == SEARCHPATH or option.endswith("._target_")


def titles(cfg: DictConfig) -> dict[str, str]:
    """Return the words for the chosen options by group, where their files have some."""
    return {group: str(cfg[group][TITLE]) for group in TITLED if TITLE in cfg[group]}


def run_name(asked: str | None, names: Mapping[str, str]) -> str:
    """Return the name of the results folder: `asked`, or else <dataset>_<model>_<scenario>.

    It ends in the name of a scale that shrinks the preset (see `ending`), once: a name that a command
    has printed is the same name beside the options that it was made with. Raise UserError as
    `checked_name`.
    """
    name = asked or "_".join(names[part] for part in ("dataset", "model", "scenario"))
    return checked_name(name.removesuffix(ending(names)) + ending(names))


def ending(names: Mapping[str, str]) -> str:
    """Return what a scale adds to a name, so that smaller results lie apart; nothing if it shrinks
    nothing."""
    scale = names.get("scale", WHOLE)
    return "" if scale == WHOLE else f"_{scale}"


def checked_name(name: str) -> str:
    """Return the name of results. Raise UserError if it is no plain folder name, or too long for the
    files that are named after it."""
    if "/" in name or name.startswith(".") or not name.isprintable():
        raise UserError(f"name={name!r} must be a plain folder name")
    if (length := len(name.encode())) > LONGEST:
        raise UserError(
            f"name={name} has {length} bytes: files are named after it, so use at most {LONGEST}"
        )
    return name


def folder_of(option: str, path: str) -> Path:
    """Return the folder that an option names. Raise UserError if it is empty, which would be the folder
    that the command is typed in."""
    if not path.strip():
        raise UserError(f"{option} is empty: name a folder, as in {option}=outputs, or . for this one")
    return Path(path)
