"""Compose configurations without the command line: for reports, figures, benchmarks and tests."""

from itertools import product

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

import conf  # noqa: F401  registers the schema
from runner.arguments import renamed
from runner.naming import choices
from runner.scales import scaled


def composed(overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """Return the configuration that the overrides give, and the names of the chosen options by group."""
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("config", scaled(renamed(overrides)), return_hydra_config=True)
    names = choices(cfg.hydra)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, names


def jobs(overrides: list[str]) -> list[list[str]]:
    """Return the overrides of every job of the sweep that `python -m runner -m` would run.

    An override counts if it is the last of its option. Those of a preset come before the given ones.
    """
    parse = OverridesParser.create().parse_overrides
    given = parse(scaled(renamed(overrides)))
    single = [str(each.input_line) for each in given if not each.is_sweep_override()]
    with initialize_config_module("conf", version_base="1.3"):
        preset = compose("config", single, return_hydra_config=True).hydra.sweeper.params or {}
    swept = parse([f"{option}={values}" for option, values in preset.items()])
    found = {each.get_key_element(): _values(each) for each in (*swept, *given)}
    return [list(job) for job in product(*found.values())]


def _values(override: Override) -> list[str]:
    """Return an override once for each of its values."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    option = override.get_key_element()
    return [f"{option}={value}" for value in override.sweep_string_iterator()]
