"""The user's own code in a training: digests of the files of the components that it runs.

An edited component is another one, also if nothing was stored yet that would ask for a new `version`.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

from data.component import Component
from runner.foreign import is_own

# The beginning of the names of digests.
CODE_OF = "code of "


def digests(identity: Any) -> dict[str, str]:
    """Return a digest of the user's files for each component of theirs that an identity names, by
    `CODE_OF` and its kind.

    The files are that of its class and those of the user's modules that it imports.
    """
    found = {f"{CODE_OF}{kind}": digest_of(kind) for kind in sorted(set(_kinds(identity)))}
    return {name: digest for name, digest in found.items() if digest is not None}


def _kinds(identity: Any) -> Iterator[str]:
    """Yield the kinds of all components in a JSON-like identity (see `data.component`)."""
    if isinstance(identity, dict):
        if isinstance(kind := identity.get("class"), str):
            yield kind
        identity = list(identity.values())
    if isinstance(identity, list):
        for value in identity:
            yield from _kinds(value)


@cache
def digest_of(kind: str) -> str | None:
    """Return the digest of the files of a kind, as they were when it was first asked for; None if it is
    this program's.

    `build` asks once it has imported them: what is edited from then on does not run in this process.
    """
    files: set[Path] = set()
    for component in _below(Component):
        if component.kind == kind:
            _add(sys.modules.get(component.__module__), files)
    parts = [file.name.encode() + file.read_bytes() for file in sorted(files)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16] if parts else None


def _below(kind: type[Component]) -> Iterator[type[Component]]:
    for each in kind.__subclasses__():
        if "kind" in vars(each):
            yield each
        yield from _below(each)


def _add(module: ModuleType | None, files: set[Path]) -> None:
    """Add the file of a module of the user's, and those of the loaded modules that it imports."""
    path = Path(getattr(module, "__file__", None) or "")
    if module is None or path in files or not is_own(path):
        return
    files.add(path)
    for name in _imported(module, path):
        _add(sys.modules.get(name), files)


def _imported(module: ModuleType, path: Path) -> Iterator[str]:
    """Yield the names that may be modules among those that a module imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), module.__package__)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
