"""Compose configurations without the command line: for reports, figures, benchmarks and tests."""

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, open_dict

import conf  # noqa: F401  registers the schema
from runner.arguments import renamed
from runner.naming import choices


def composed(overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """Return the configuration that the overrides give, and the names of the chosen options by group."""
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("config", renamed(overrides), return_hydra_config=True)
    names = choices(cfg.hydra)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, names
