"""Checks of a component against the data that it will see, made before any work.

The bounds of single numbers stand at their fields (see `data.bounds`).
"""

from collections.abc import Callable

import torch

from data.component import Component
from data.errors import UserError

LARGEST = torch.finfo(torch.float32).max


def batch_fits(
    option: str, component: Component, rows: int, part: str, name: str = "batch_size"
) -> None:
    """Raise UserError if a part of the data, such as "the training set", has no rows for a full batch.

    `rows` counts the rows of the part; `name` is the field of the component that holds the batch size.
    """
    size = getattr(component, name)
    if size > rows:
        raise UserError(
            f"{option}.{name}={size} is larger than {part}, which has {rows} "
            f"rows: set {option}.{name}={rows} or less"
        )


def most_classes_stay(classes: int, gone: list[int]) -> None:
    """Raise UserError if a request forgets half of the classes or more.

    For methods that move the rows of a forgotten class to the remaining classes around it. `classes` is
    K, and `gone` lists the forgotten classes.
    """
    if 2 * len(gone) >= classes:
        raise UserError(
            f"the request forgets {len(gone)} of {classes} classes, and this method moves their rows to "
            "the remaining classes: forget fewer than half, or choose another method"
        )


# The functions below bound single numbers of components whose fields do not state their bounds yet.


def at_least_one(option: str, component: Component, *names: str) -> None:
    _refuse_unless(lambda value: value >= 1, "be at least 1", option, component, names)


def zero_or_more(option: str, component: Component, *names: str) -> None:
    within = "be 0 or more, and finite"
    _refuse_unless(lambda value: 0 <= value < LARGEST, within, option, component, names)


def above_zero(option: str, component: Component, *names: str) -> None:
    _refuse_unless(lambda value: 0 < value < LARGEST, "be above 0, and finite", option, component, names)


def zero_to_one(option: str, component: Component, *names: str) -> None:
    _refuse_unless(lambda value: 0 <= value <= 1, "lie between 0 and 1", option, component, names)


def above_zero_to_one(option: str, component: Component, *names: str) -> None:
    _refuse_unless(lambda value: 0 < value <= 1, "be above 0 and at most 1", option, component, names)


def _refuse_unless(
    holds: Callable[[float], bool], must: str, option: str, component: Component, names: tuple[str, ...]
) -> None:
    for name in names:
        value = getattr(component, name)
        if not holds(value):
            raise UserError(f"{option}.{name}={value}: it must {must}")
