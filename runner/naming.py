"""The names of the chosen options, and the name of a run's results."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf


def choices(hydra: Any) -> dict[str, str]:
    """The names of the chosen options, from Hydra's own configuration."""
    chosen = OmegaConf.to_container(hydra.runtime.choices)
    assert isinstance(chosen, dict)
    return {
        str(group): str(name)
        for group, name in chosen.items()
        if "/" not in str(group) and name not in (None, "null", "none")
    }


def run_name(asked: str | None, names: Mapping[str, str]) -> str:
    """The results folder: the one asked for, or <dataset>_<model>_<scenario>; a profile of a preset has
    its own."""
    parts = [asked] if asked else [names[part] for part in ("dataset", "model", "scenario")]
    return "_".join([*parts, *(names[part] for part in ("profile",) if part in names)])
