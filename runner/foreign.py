"""Foreign code: find the user's own file in the traceback of an error, and say whose error it is.

Components of a user's own run inside our stages. If one fails, a message that names the component, the
file and the line helps more than our traceback.
"""

import sysconfig
from collections.abc import Callable
from pathlib import Path
from traceback import walk_tb
from types import FrameType

from data.component import Component
from data.contracts import kind_of
from runner.shadowed import PACKAGES, ROOT

OURS = [ROOT / package for package in (*PACKAGES, "hydra_plugins", "runner")]
STANDARD = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]

# Folders of installed packages, of this environment and of those that it is layered on.
INSTALLED = {"site-packages", "dist-packages"}


def blamed(error: Exception) -> str | None:
    """Return a sentence that names the user's code that raised the error; None if it was not theirs."""
    place = _innermost(error, _is_foreign)
    if place is None:
        return None
    text = next(iter(str(error).strip().splitlines()), "")
    raised = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{place}, raised {raised}; HYDRA_FULL_ERROR=1 shows the traceback"


def located(error: Exception) -> str:
    """Return the error's message, after the component that it is about, its file and its line."""
    place = _innermost(error, lambda frame: _component(frame) is not None)
    return str(error) if place is None else f"{place}: {error}"


def _innermost(error: Exception, wanted: Callable[[FrameType], bool]) -> str | None:
    """Return the place of the innermost wanted frame in the error's traceback, and its component."""
    found = [(frame, line) for frame, line in walk_tb(error.__traceback__) if wanted(frame)]
    if not found:
        return None
    components = [component for frame, _ in found if (component := _component(frame)) is not None]
    owner = f"{kind_of(components[-1])} {type(components[-1]).__name__}" if components else "your code"
    frame, line = found[-1]
    return f"{owner}, in {frame.f_code.co_qualname} ({frame.f_code.co_filename}, line {line})"


def _is_foreign(frame: FrameType) -> bool:
    """Return whether a user wrote the frame's code, be it a file of theirs or an installed component."""
    path = Path(frame.f_code.co_filename)
    if _component(frame) is not None:
        return path.is_file() and not _below(path, OURS)
    return is_own(path)


def is_own(path: Path) -> bool:
    """Return whether a file is the user's: neither of this program nor of an installed distribution."""
    return path.is_file() and not _below(path, OURS) and not is_library(path)


def is_library(path: Path) -> bool:
    """Return whether a file belongs to Python or to an installed distribution."""
    return bool(INSTALLED & set(path.parts)) or _below(path, STANDARD)


def _below(path: Path, folders: list[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _component(frame: FrameType) -> Component | None:
    """Return the component whose method the frame runs."""
    found = frame.f_locals.get("self")
    return found if isinstance(found, Component) else None
