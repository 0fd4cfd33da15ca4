"""The names of the chosen options, and the name of a run's results."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# The key of an option's words in its YAML file, and the groups that have them.
TITLE = "_title_"
TITLED = ("dataset", "model", "scenario", "method")


def choices(hydra: Any) -> dict[str, str]:
    """Return the names of the chosen options by group, from Hydra's own configuration.

    Groups within groups (`hydra/launcher`), groups without a choice and shared parts (`_none`) are left
    out.
    """
    chosen = OmegaConf.to_container(hydra.runtime.choices)
    assert isinstance(chosen, dict)
    return {
        str(group): str(name)
        for group, name in chosen.items()
        if "/" not in str(group) and name not in (None, "null", "none") and str(name)[0] != "_"
    }


def titles(cfg: DictConfig) -> dict[str, str]:
    """Return the words for the chosen options by group, where their files have some."""
    return {group: str(cfg[group][TITLE]) for group in TITLED if TITLE in cfg[group]}


def run_name(asked: str | None, names: Mapping[str, str]) -> str:
    """Return the name of the results folder: `asked`, or else <dataset>_<model>_<scenario>.

    The name of a chosen profile is appended, so that quick results lie apart.
    """
    parts = [asked] if asked else [names[part] for part in ("dataset", "model", "scenario")]
    return "_".join([*parts, *(names[part] for part in ("profile",) if part in names)])
