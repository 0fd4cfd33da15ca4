"""Options that were added with + and that nothing reads: typing errors that would have no effect."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import get_type_hints

from omegaconf import DictConfig, OmegaConf

from conf import Run
from data.errors import UserError
from runner.naming import SEARCHED, TUNED
from runner.wording import LISTED, NOTHING, suggestion

# Nodes that hold components by name, and how one of them is chosen.
BY_NAME = {**LISTED, "evaluation.metrics": "metric=[{}]"}


def refuse_unread(cfg: DictConfig, names: Mapping[str, str], overrides: Sequence[str]) -> None:
    """Raise UserError for an option that is in no schema and that no other option refers to, or if an
    override adds an option of a component that is not chosen, or names tuned options that are not there.

    `names` are the chosen options by group. The options of components are checked when the components
    are built.
    """
    _refuse_unsearched(names, overrides)
    _refuse_unchosen(cfg, overrides)
    for option, name, known in _unknown("", cfg, Run):
        if f"${{{option}" not in OmegaConf.to_yaml(cfg):
            listed = ", ".join(sorted(known))
            holder = option.rpartition(".")[0] or "a run"
            raise UserError(
                f"nothing reads +{option}{suggestion(name, known)}: {holder} has {listed}; leave it out"
            )


def _unknown(prefix: str, node: DictConfig, schema: type) -> Iterator[tuple[str, str, set[str]]]:
    """Yield the options of a node that are no field of its schema, with their names and the fields'."""
    hints = get_type_hints(schema)
    for key in map(str, node):
        if key not in hints:
            yield f"{prefix}{key}", key, set(hints)
        elif is_dataclass(hints[key]):
            yield from _unknown(f"{prefix}{key}.", node[key], hints[key])


def _refuse_unsearched(names: Mapping[str, str], overrides: Iterable[str]) -> None:
    """Raise UserError if the last choice of tuned options names a file that does not exist."""
    chosen = [override for override in overrides if override.startswith(f"{TUNED}=")]
    name = chosen[-1].partition("=")[2] if chosen else ""
    if name not in NOTHING and "${" not in name and TUNED not in names:
        raise UserError(
            f"{TUNED}={name}: conf/tuned has no such file: write '{SEARCHED}' for the file of each "
            "method, if it has one, or tuned=none"
        )


def _refuse_unchosen(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Raise UserError if an override adds an option of a component that is not chosen.

    A preset may set options of a component that is not chosen; on the command line it is an error.
    """
    for override in overrides:
        found = re.match(r"\++((recorder|figure|evaluation\.metrics)\.(\w+))", override)
        if found and "_target_" not in (OmegaConf.select(cfg, found[1]) or {}):
            names = dict.fromkeys([*map(str, OmegaConf.select(cfg, found[2])), found[3]])
            choice = BY_NAME[found[2]].format(",".join(names))
            raise UserError(f"{found[1]} is not chosen: choose it first: {choice}")
