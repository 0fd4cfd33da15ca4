"""Labels: the name of every line of a table, and the order of the lines."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from runner.results import Line, Result
from runner.roles import ORIGINAL, ROLES, Role

# Choices that name a line. Other choices and options tell lines of one name apart.
NAMES = ("method", "variant")


class Description(NamedTuple):
    """The role of a line's models, its name whatever its options, and the options they depend on."""

    role: Role
    name: str
    options: Mapping[str, Any]


def descriptions(results: list[Result]) -> dict[Line, Description]:
    """Describe every line that the results belong to."""
    found: dict[Line, Description] = {}
    for result in results:
        options = {name: value for name, value in result.names.items() if name not in NAMES}
        options |= {as_option(name): value for name, value in result.parameters.items()}
        for role in ROLES:
            if role.shared or role.name in result.cells:
                own = {option: value for option, value in options.items() if role.depends_on(option)}
                name = role.label.format(name=result.variant)
                found[result.line(role)] = Description(role, name, own)
    return found


def labels(described: Mapping[Line, Description]) -> dict[Line, str]:
    """Return the label of every line.

    A label is the line's name, the choices in which lines of the same name differ, and the options in
    which lines of the same name and choices differ.
    """
    found = {}
    for line, (_, name, options) in described.items():
        alike = [other.options for other in described.values() if other.name == name]
        same = [other for other in alike if _choices(other) == _choices(options)]
        differing = [
            f"{option.removeprefix('method.')}={_short(value)}"
            for option, value in options.items()
            if any(other.get(option) != value for other in (alike if _is_choice(option) else same))
        ]
        found[line] = f"{name} ({', '.join(differing)})" if differing else name
    return found


def in_order(
    lines: Iterable[Line], described: Mapping[Line, Description], named: Mapping[Line, str]
) -> list[Line]:
    """Sort lines by setting, then by the place of their role, then by label.

    Settings are sorted by the labels of their originals. Numbers in labels are sorted by size.
    """

    def place(line: Line) -> Any:
        original = Line(line.setting, ORIGINAL.name)
        own = _by_size(named[line])
        return _by_size(named[original]), line.setting, described[line].role.place, own

    return sorted(lines, key=place)


def as_option(parameter: str) -> str:
    """Return the option that sets a parameter of a result, which is a dotted name of its identity."""
    return parameter.removeprefix("pretrain.").replace("data.source.", "dataset.")


def _by_size(label: str) -> list[str | float]:
    """Split a label into words and numbers in turn, as a key for sorting."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [float(part) if number % 2 else part for number, part in enumerate(parts)]


def _is_choice(option: str) -> bool:
    """Return whether an option is the choice of a group, such as `dataset`, and not a value in it."""
    return "." not in option


def _choices(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if _is_choice(name)}


def _short(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
