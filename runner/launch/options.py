"""Options of a launcher: a node of the configuration as its dataclass, checked before any work."""

from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.bounds import check_bounds
from data.errors import UserError, reason

Options = TypeVar("Options")


def checked(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the options of `hydra.launcher`. Raise UserError, naming the option, if one is of the wrong
    type or out of its bounds."""
    try:
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), dict(given)))
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.launcher.{error.full_key}: {reason(error)}") from error
    assert isinstance(found, kind)
    check_bounds("hydra.launcher", found)
    return found
