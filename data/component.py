"""What a configuration file can name: a frozen dataclass whose fields are its parameters."""

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, ClassVar


class Component:
    """A data set, architecture, recipe, scenario, method or metric.

    Its identity decides which results are the same: all fields, unless a component says otherwise
    (a file is its content, not its path). Raise `version` when the same fields come to mean something
    else, as after a bug was mended, and old results are left alone.
    """

    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def identity_of(component: Component) -> dict[str, Any]:
    """The component's class and identity as JSON-like values."""
    kind = type(component)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "version": component.version,
        **plain(component.identity()),
    }


def plain(value: Any) -> Any:
    """Enums by name, components by identity, containers as lists and dictionaries."""
    if isinstance(value, Component):
        return identity_of(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.name if isinstance(value, Enum) else value
