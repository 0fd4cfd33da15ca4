"""The names of the chosen options, and the name of a run's results."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf


def choices(hydra: Any) -> dict[str, str]:
    """Return the names of the chosen options by group, from Hydra's own configuration.

    Groups within groups (`hydra/launcher`), groups within an option (`training@pretrained.training`) and
    groups without a choice are left out.
    """
    chosen = OmegaConf.to_container(hydra.runtime.choices)
    assert isinstance(chosen, dict)
    return {
        str(group): str(name)
        for group, name in chosen.items()
        if not {"/", "@"} & set(str(group)) and name not in (None, "null", "none")
    }


# The scale that shrinks nothing.
WHOLE = "paper"


def run_name(asked: str | None, names: Mapping[str, str]) -> str:
    """Return the name of the results folder: `asked`, or else <dataset>_<model>_<scenario>.

    The name of a scale that shrinks the preset is appended, so that smaller results lie apart.
    """
    parts = [asked] if asked else [names[part] for part in ("dataset", "model", "scenario")]
    scale = names.get("scale", WHOLE)
    return "_".join(parts if scale == WHOLE else [*parts, scale])
