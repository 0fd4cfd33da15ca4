"""Configurations as tests compose them: each choice of groups once."""

import copy
import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.compose import composed

# An override of a value below a node; another one without a dot may choose a group.
VALUE = re.compile(r"\w+(\.\w+)+=|(seed|threads)=")

# The variable that names the folder through which the processes of a suite share what they compose.
FOLDER = "COMPOSED_BY_TESTS"


def composed_once(*overrides: str) -> tuple[DictConfig, Mapping[str, str]]:
    """Return the configuration that overrides give, and the names of the chosen options by group.

    Hydra takes a tenth of a second for each, and a suite asks for thousands, which differ in values
    more often than in groups: a suite composes each choice of groups once and sets the values in a
    copy, as Hydra does itself at the end. The result is read-only, as tests share it.
    """
    groups, values = [], []
    for override in overrides:
        (values if VALUE.match(override) else groups).append(override)
    if not values:
        return _composed(overrides)
    cfg, names = _composed(tuple(groups))
    cfg = copy.deepcopy(cfg)
    OmegaConf.set_readonly(cfg, False)
    try:
        for each in OverridesParser.create().parse_overrides(values):
            OmegaConf.update(cfg, each.key_or_group, each.value())
    except OmegaConfBaseException:
        return _composed(overrides)  # the sentence of the command line
    OmegaConf.set_readonly(cfg, True)
    return cfg, names


@cache
def _composed(overrides: tuple[str, ...]) -> tuple[DictConfig, Mapping[str, str]]:
    folder = os.environ.get(FOLDER)
    if folder is None:
        return _read_only(overrides)
    file = Path(folder) / hashlib.sha256(repr(overrides).encode()).hexdigest()
    if not file.exists():
        with NamedTemporaryFile(dir=folder, delete=False) as part:
            pickle.dump(_read_only(overrides), part)
        Path(part.name).replace(file)
    found: tuple[DictConfig, Mapping[str, str]] = pickle.loads(file.read_bytes())
    return found


def _read_only(overrides: tuple[str, ...]) -> tuple[DictConfig, Mapping[str, str]]:
    cfg, names = composed(list(overrides))
    OmegaConf.set_readonly(cfg, True)
    return cfg, names
