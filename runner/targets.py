"""The classes that a configuration may name: those of this project, and of a folder of the user's own.

A configuration may come from someone else. It must not run what happens to be installed on the machine,
such as `os.system`. A folder of one's own counts because the user put it where Python finds it: into
PYTHONPATH, or by working there.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data.errors import UserError
from runner.foreign import is_library
from runner.shadowed import PACKAGES

OURS = (*PACKAGES, "runner")

# Hydra's own plugins, and the handlers of its logging.
HYDRAS = ("hydra", "hydra_plugins", "logging", "colorlog")

# The keys by which Hydra, and Python's logging that it configures, name what to call.
NAMING = ("_target_", "class", "()")


def require_allowed(option: str, target: str) -> None:
    """Raise UserError if the target's package belongs to Python or to an installed distribution."""
    package = target.split(".")[0]
    if package not in OURS and _is_installed(package):
        raise UserError(
            f"{option}._target_={target}: a configuration may name classes of this program, or of a "
            "folder of your own that PYTHONPATH names, not of installed packages"
        )


def of_hydra(node: Any, option: str = "hydra") -> Iterator[str]:
    """Yield what Hydra's own configuration names to be called. Raise UserError for what it may not."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if key in NAMING and isinstance(value, str):
            if value.split(".")[0] not in HYDRAS:
                require_allowed(option, value)
            yield value
        yield from of_hydra(value, f"{option}.{key}")


def _is_installed(package: str) -> bool:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # no name of a module
        return False
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    return any(not Path(place).exists() or is_library(Path(place)) for place in places)
