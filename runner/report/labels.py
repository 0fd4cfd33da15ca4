"""Labels: the name of every line of a table, in identifiers or in words."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from runner.report.words import choice, setting
from runner.results import Line, Result
from runner.roles import ROLES, Role

# Choices that name a line. Other choices and options tell lines of one name apart.
NAMES = ("method", "variant")


class Description(NamedTuple):
    """The role of a line's models, its name and its title whatever its options, the options they depend
    on, and the titles of the choices among these."""

    role: Role
    name: str
    title: str
    options: Mapping[str, Any]
    choices: Mapping[str, str]


def descriptions(results: list[Result]) -> dict[Line, Description]:
    """Describe every line that the results belong to."""
    found: dict[Line, Description] = {}
    for result in results:
        options = {name: value for name, value in result.names.items() if name not in NAMES}
        choices = {group: choice(result, group) for group in options}
        options |= {as_option(name): value for name, value in result.parameters.items()}
        for role in ROLES:
            if role.shared or role.name in result.cells:
                own = {option: value for option, value in options.items() if role.depends_on(option)}
                name = role.label.format(name=result.variant)
                title = role.words.format(name=choice(result, "method"))
                found[result.line(role)] = Description(role, name, title, own, choices)
    return found


def labels(described: Mapping[Line, Description]) -> dict[Line, str]:
    """Return the label of every line in identifiers, as in "finetune (lr=0.1)".

    A label is the line's name, the choices in which lines of the same name differ, and the options in
    which lines of the same name and choices differ. An option that is null in a line is left out there,
    and so is the version of a component where another option tells the lines apart.
    """
    found = {}
    for line, options in _differing(described, lambda each: each.name).items():
        texts = [
            f"{option.removeprefix('method.')}={_short(value)}" for option, value in options.items()
        ]
        name = described[line].name
        found[line] = f"{name} ({', '.join(texts)})" if texts else name
    return found


def titles(described: Mapping[Line, Description]) -> dict[Line, str]:
    """Return the label of every line in people's words, as in "fine-tuning, learning rate 0.1"."""
    found = {}
    for line, options in _differing(described, lambda each: each.title).items():
        texts = [
            described[line].choices.get(option) or setting(option, value)
            for option, value in options.items()
        ]
        found[line] = ", ".join([described[line].title, *texts])
    return found


def as_option(parameter: str) -> str:
    """Return the option that sets a parameter of a result, which is a dotted name of its identity."""
    return parameter.removeprefix("pretrain.").replace("data.source.", "dataset.")


def _differing(
    described: Mapping[Line, Description], name: Callable[[Description], str]
) -> dict[Line, dict[str, Any]]:
    """Return, for every line, its options that tell it from the lines of the same name."""
    found = {}
    for line, own in described.items():
        options = own.options
        alike = [other.options for other in described.values() if name(other) == name(own)]
        same = [other for other in alike if _choices(other) == _choices(options)]
        twins = [other for other in same if _set(other) == _set(options)]
        found[line] = {
            option: value
            for option, value in options.items()
            if value is not None
            and any(
                other.get(option) != value
                for other in (alike if _is_choice(option) else twins if _is_version(option) else same)
            )
        }
    return found


def _is_choice(option: str) -> bool:
    """Return whether an option is the choice of a group, such as `dataset`, and not a value in it."""
    return "." not in option


def _is_version(option: str) -> bool:
    """Return whether an option is the version of a component, which no command sets."""
    return option.endswith(".version")


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a command may set."""
    return {name: value for name, value in options.items() if not _is_version(name)}


def _choices(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if _is_choice(name)}


def _short(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
