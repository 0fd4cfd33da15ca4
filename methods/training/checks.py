"""Checks of a component against the data that it will see, before any work.

The bounds of single numbers stand at their fields (see `data.bounds`).
"""

from data.component import Component
from data.errors import UserError


def batch_fits(
    option: str, component: Component, rows: int, part: str, name: str = "batch_size"
) -> None:
    """Raise UserError if a part of the data has too few rows for a full batch.

    `part` names the part, such as "the training set", and `rows` counts its rows. `name` is the field of
    the component that holds the batch size.
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
    # |gone| ≥ K/2: the nearest other class could mostly be a forgotten one
    if 2 * len(gone) >= classes:
        raise UserError(
            f"the request forgets {len(gone)} of {classes} classes, and this method moves their rows to "
            "the remaining classes: forget fewer than half, or choose another method"
        )
