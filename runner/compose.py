"""Compose configurations without the command line: for reports, figures, benchmarks and tests."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from itertools import product
from typing import TYPE_CHECKING, cast

import hydra.utils
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

import conf  # registers the schema
from data.errors import UserError
from runner.arguments import deferred, renamed
from runner.naming import choices
from runner.targets import of_hydra
from runner.unread import refuse_unread
from runner.wording import CHOSEN_BY_OTHERS

if TYPE_CHECKING:  # a plan imports torch
    from runner.plan import Plan

# Hydra's launcher in place of which ours runs the cells of a sweep.
REPLACED = "basic"

# Hydra 1.3 warns without `version_base`, and later versions warn with it.
BASE = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


SEED = re.compile(r"seed=(\d+)")

# An interpolation that may refer to the seed.
READS_SEED = re.compile(r"\$\{[^}]*\b(seed|override_dirname)\b")


def composed(overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """Return the configuration that the overrides give, and the names of the chosen options by group.

    Raise UserError if an option was added that nothing reads.
    """
    present = renamed(overrides)
    _parsed(present)
    with _initialized():
        cfg = compose("config", present, return_hydra_config=True)
    own, names = without_hydra(cfg)
    refuse_unread(own, names, overrides)
    return own, names


def without_hydra(config: DictConfig) -> tuple[DictConfig, dict[str, str]]:
    """Return a configuration without Hydra's own part, and the names of the chosen options by group."""
    names, own = choices(config.hydra), config.copy()
    with open_dict(own):
        del own["hydra"]
    return own, names


class Composer:
    """Composes the cells of a sweep, with Hydra's part; `config` is that of the sweep.

    Cells that differ in their seeds alone are composed once: it takes longer than the rest of a cell
    whose stages are stored.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self.loader = context.config_loader
        self.config = config
        self._known: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of a cell. Raise Hydra's errors if it does not compose."""
        rest, seed = without_seed(overrides)
        if seed is None or rest not in self._known:
            config = self.loader.load_sweep_config(self.config, list(overrides))
            if seed is None or reads_seed(config):
                return config
            self._known[rest] = config
        found = deepcopy(self._known[rest])
        with open_dict(found):
            found.seed = seed
            found.hydra.overrides.task = list(overrides)
            found.hydra.job.override_dirname = MISSING  # nothing reads it
        return found


def without_seed(overrides: Sequence[str]) -> tuple[tuple[str, ...], int | None]:
    """Return the overrides without those of the seed, and the seed; None if they give none."""
    seeds = [found for text in overrides if (found := SEED.fullmatch(text))]
    rest = tuple(text for text in overrides if not SEED.fullmatch(text))
    return rest, int(seeds[-1][1]) if seeds else None


def reads_seed(config: DictConfig) -> bool:
    """Return whether another value of a configuration may follow from the seed."""
    return bool(READS_SEED.search(OmegaConf.to_yaml(config)))


def planned(cfg: DictConfig, names: Mapping[str, str], overrides: Sequence[str]) -> "Plan":
    """Return the plan of a run that the command line composed.

    Raise UserError for every fault that can be found without reading data, also of table and figures.
    """
    from runner.columns import asks_for_columns, check_columns
    from runner.figure.drawing import Drawing
    from runner.plan import Plan, build_chosen

    refuse_unread(cfg, names, overrides)
    plan = Plan.of(cfg, names)
    drawings = build_chosen(cfg.figure, Drawing, "figure", plan.source)
    check_columns(plan, list(cfg.table.columns), drawings, asks_for_columns(overrides))
    return plan


def options(overrides: list[str]) -> dict[str, list[str]]:
    """Return the options of every group, with those of the search path that the overrides give.

    A leading underscore marks a shared part, which is no option.
    """
    with _initialized():
        loader = GlobalHydra.instance().config_loader()
        groups = [*(set(loader.list_groups("")) - CHOSEN_BY_OTHERS), "hydra/launcher"]
        found = {
            group: loader.get_group_options(group, ObjectType.CONFIG, "config", overrides)
            for group in groups
        }
    found["hydra/launcher"].remove(REPLACED)
    listed = {group: [name for name in names if name[0] != "_"] for group, names in found.items()}
    return {group: names for group, names in listed.items() if names}


def jobs(overrides: list[str]) -> list[list[str]]:
    """Return the overrides of every job of the sweep that `python -m runner -m` would run.

    An override counts if it is the last of its option. Those of a preset come before the given ones.
    """
    with _initialized():  # which glob(…) looks for options in
        given = _parsed(deferred(renamed(overrides)))
        single = [str(each.input_line) for each in given if not each.is_sweep_override()]
        preset = compose("config", single, return_hydra_config=True).hydra.sweeper.params or {}
        swept = _parsed([f"{option}={values}" for option, values in preset.items()])
        found = {each.get_key_element(): _values(each) for each in (*swept, *given)}
    return [list(job) for job in product(*found.values())]


def trusting(arguments: list[str]) -> AbstractContextManager[None]:
    """Return a context in which Hydra calls what its own configuration names, and nothing else.

    Raise UserError if the configuration names what it may not (see `runner.targets`). Hydra composes it
    again, and says what else is wrong with it.
    """
    given = [argument for argument in arguments if argument[:1] != "-"]
    try:
        parsed = _parsed(given)
        with _initialized():
            overrides = [str(each.input_line) for each in parsed if _decides_hydra(each)]
            cfg = compose("config", overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        return nullcontext()
    targets = list(of_hydra(OmegaConf.to_container(cfg.hydra)))
    allow = getattr(hydra.utils, "execution_whitelist", None)  # since Hydra 1.4
    return nullcontext() if allow is None else cast(AbstractContextManager[None], allow(targets))


def _parsed(overrides: Sequence[str]) -> list[Override]:
    """Return the overrides in Hydra's terms. Raise UserError if a group is given anything but names."""
    hydra_now = GlobalHydra.instance()
    loader = hydra_now.config_loader() if hydra_now.is_initialized() else None
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    for each in parsed:
        value = None if each.is_sweep_override() else each.value()
        folder = conf.FOLDER / each.key_or_group
        if isinstance(value, list) and folder.is_dir() and not all(map(_is_name, value)):
            names = ", ".join(sorted(path.stem for path in folder.glob("[!_]*.yaml")))
            raise UserError(f"{each.input_line}: a group takes names of options: choose from {names}")
    return parsed


def _is_name(value: object) -> bool:
    return isinstance(value, str | QuotedString)


def _decides_hydra(override: Override) -> bool:
    """Return whether an override may decide Hydra's own configuration: it does, or chooses a group."""
    option = override.get_key_element()
    return not override.is_sweep_override() and ("." not in option or "hydra." in option)


@contextmanager
def _initialized() -> Iterator[None]:
    with initialize_config_module("conf", **BASE):
        yield


def _values(override: Override) -> list[str]:
    """Return an override once for each of its values."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    option = override.get_key_element()
    return [f"{option}={value}" for value in override.sweep_string_iterator()]
