"""Read what the annotations of a dataclass say of its fields."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

Mark = TypeVar("Mark")

UNSET = "???"  # the value of an option that OmegaConf takes for missing


def marks_of(cls: type, kind: type[Mark]) -> Iterator[tuple[str, Mark]]:
    """Yield name and mark of each field whose annotation holds a mark of this kind.

    A mark is what `Annotated[int, mark]` adds to a type; it may stand inside `list[…]` and `… | None`.
    """
    for name, hint in get_type_hints(cls, include_extras=True).items():
        yield from ((name, mark) for mark in _within(hint, kind))


def single_values_in_lists(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values, those of fields that hold lists as lists: 3 becomes [3]."""
    hints = get_type_hints(cls)
    return {
        name: [value] if _holds_list(hints.get(name)) and _is_single(value) else value
        for name, value in given.items()
    }


def _within(hint: Any, kind: type[Mark]) -> Iterator[Mark]:
    if get_origin(hint) is Annotated:
        yield from (extra for extra in get_args(hint) if isinstance(extra, kind))
    for argument in get_args(hint):
        yield from _within(argument, kind)


def _holds_list(hint: Any) -> bool:
    return any(get_origin(part) is list for part in (hint, *get_args(hint)))


def _is_single(value: Any) -> bool:
    return isinstance(value, int | float | str) and value != UNSET
