"""Spaces: the options of a method that a search varies, and their ranges.

`given` is `tune.space`: for each option its `low`, `high` and `log`, or the list of its values.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from data.component import plain
from data.errors import UserError
from methods.base import Method

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Values of a method's options, by name.
Values = dict[str, Any]


def space_of(method: Method, given: Mapping[str, Any]) -> "dict[str, BaseDistribution]":
    """Return Optuna's distribution of each option. Those that take whole numbers alone draw these.

    Raise UserError if the method has no such option, if a range is none or lacks the method's own value,
    or if Optuna is not installed.
    """
    try:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    except ImportError as error:
        raise UserError('the tuner needs Optuna: pip install -e ".[tuner]"') from error
    hints = get_type_hints(type(method))
    found: dict[str, BaseDistribution] = {}
    for name, wanted in given.items():
        if name not in hints:
            raise UserError(f"tune.space.{name} is no option of {type(method).__name__}")
        numbers = (
            FloatDistribution if float in (hints[name], *get_args(hints[name])) else IntDistribution
        )
        try:
            found[name] = (
                CategoricalDistribution(wanted) if isinstance(wanted, list) else numbers(**wanted)
            )
        except (TypeError, ValueError) as error:
            raise UserError(
                f"tune.space.{name}={wanted}: write low, high and log, or a list of values ({error})"
            ) from error
        own = plain(getattr(method, name))
        if not _holds(wanted, own):
            raise UserError(
                f"tune.space.{name}={wanted} lacks method.{name}={own}, where the search starts: widen "
                f"the range, or set method.{name}"
            )
    return found


def ends(given: Mapping[str, Any]) -> list[Values]:
    """Return the point of all lowest, or first, values, and the one of all highest, or last."""
    sides = {
        name: (wanted[0], wanted[-1]) if isinstance(wanted, list) else (wanted["low"], wanted["high"])
        for name, wanted in given.items()
    }
    return [{name: side[end] for name, side in sides.items()} for end in (0, 1)]


def rounded(values: Mapping[str, Any]) -> Values:
    """Return the values with three significant digits: what a trial runs with is what can be written."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in values.items()
    }


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """Return the values of a method's options as overrides."""
    return [f"method.{name}={json.dumps(value)}" for name, value in values.items()]


def _holds(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, list):
        return value in wanted
    return isinstance(value, int | float) and wanted["low"] <= value <= wanted["high"]
