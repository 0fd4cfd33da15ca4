"""Contracts of components: their names in messages, and checks of what their methods return."""

import inspect
from typing import Any, TypeVar

from data.component import Component
from data.errors import UserError

Returned = TypeVar("Returned")


def returned(
    component: Component, call: str, value: Any, wanted: type[Returned], meaning: str
) -> Returned:
    """Return `value`, which the component's method `call` returned, if it is a `wanted`.

    `meaning` completes the sentence "it must return …". Raise UserError, naming the component and its
    file, if the value is of another type.
    """
    if isinstance(value, wanted):
        return value
    found = "nothing" if value is None else f"a value of type {type(value).__name__}"
    raise UserError(f"{named(component, call)} must return {meaning}, and returned {found}")


def returned_scores(component: Component, value: Any) -> dict[str, Any]:
    """Return `value`, which a metric returned, if it maps names to numbers or to lists of lists.

    Raise UserError, naming the metric and its file, if it does not.
    """
    meaning = "a dictionary of numbers, or of lists of lists for matrices, by name"
    scores = returned(component, "__call__", value, dict, meaning)
    for name, score in scores.items():
        if (
            not isinstance(name, str)
            or isinstance(score, bool)
            or not isinstance(score, int | float | list)
        ):
            raise UserError(
                f"{named(component, '__call__')} must return {meaning}, and returned "
                f"{name!r}: {type(score).__name__}"
            )
    return scores


def named(component: Component, call: str) -> str:
    """Return the name of a component's method for a message, with its file and line."""
    function = inspect.unwrap(getattr(type(component), call))
    code = function.__code__
    owner = f"{kind_of(component)} {type(component).__name__}"
    return f"{call} of {owner} ({code.co_filename}, line {code.co_firstlineno})"


def kind_of(component: Component) -> str:
    """Return the word for the component's kind: method, architecture, source, metric and so on."""
    lineage = type(component).__mro__
    return lineage[lineage.index(Component) - 1].__name__.lower()
