"""Components: frozen dataclasses that a configuration file names. Their parameters are their fields."""

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, ClassVar


class Component:
    """A data set, architecture, recipe, recorder, scenario, method or metric.

    Components with the same identity give the same results. It holds every field, unless a component
    overrides `identity` (a file is identified by its content, not by its path).

    `kind` names the component in its identity. It stays the same if the class moves to another file, so
    that stored results are found again. A class that sets none is named by its module and class.
    `version` counts changes of meaning. Raise it if the same fields produce other results, as after a
    bug fix; results of earlier versions are then no longer used.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" not in vars(cls):  # a subclass does not inherit its parent's kind
            cls.kind = f"{cls.__module__}.{cls.__qualname__}"

    def identity(self) -> dict[str, Any]:
        """Return, by name, the values that decide the results of this component."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def idle(self) -> Mapping[str, str]:
        """Return, by name, the reasons of fields that have no effect beside the others' values."""
        return {}


def identity_of(component: Component) -> dict[str, Any]:
    """Return a component's kind, version and identity as JSON-like values."""
    return {"class": component.kind, "version": component.version, **plain(component.identity())}


def plain(value: Any) -> Any:
    """Convert to JSON-like values: enums to names, components to identities, tuples to lists."""
    if isinstance(value, Component):
        return identity_of(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.name if isinstance(value, Enum) else value
