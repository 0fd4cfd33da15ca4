"""Classes of a data set, given by number or by name: `scenario.classes=[cat]` is class 3 of CIFAR-10.

The annotation of a field says that it holds classes:

    classes: list[ClassNumber]

Names become numbers before the field is filled. Components and their identities hold numbers only, so a
name and its number give the same key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from data.annotations import UNSET, marks_of
from data.bounds import COUNT, NUMBER
from data.errors import UserError
from data.sources import Source


@dataclass(frozen=True)
class OfDataSet:
    """Marks a field that holds classes of the data set, or its fine classes."""

    fine: bool


ClassNumber = Annotated[int, NUMBER, OfDataSet(fine=False)]
FineClassNumber = Annotated[int, NUMBER, OfDataSet(fine=True)]


def number_classes(option: str, cls: type, given: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Return the values given for a component, with the names of classes replaced by their numbers.

    `option` holds the component (`scenario`, …), `cls` is its class. Raise UserError for an unknown name
    and for fine classes of a data set that has none.
    """
    numbered = dict(given)
    for field, mark in marks_of(cls, OfDataSet):
        if field in given:
            full = f"{option}.{field}"
            names = source.fine_class_names(full) if mark.fine else source.class_names
            numbered[field] = _numbered(full, given[field], names)
    return numbered


def class_number(option: str, asked: Any, names: Sequence[str]) -> Any:
    """Return the number of a class given by its name; return anything but a name unchanged.

    Raise UserError, listing the names, if none of them is asked for.
    """
    if not isinstance(asked, str) or asked == UNSET:
        return asked
    if asked in names:
        return names.index(asked)
    try:
        return int(asked)
    except ValueError as error:
        raise UserError(
            f"{option} asks for class {asked}, but the data set has {', '.join(names)}: "
            f"name one of these, or its number from 0 to {len(names) - 1}"
        ) from error


def check_classes(option: str, asked: Sequence[int], classes: int) -> None:
    """Raise UserError if no class is asked for, or one outside 0 to `classes` - 1."""
    if not asked:
        raise UserError(f"{option} is empty, so that nothing would be forgotten: name a class")
    for label in asked:
        if not 0 <= label < classes:
            raise UserError(
                f"{option} asks for class {label}, but the data set has classes 0 to {classes - 1}"
            )


def rare_classes(option: str, asked: Any, source: Source) -> dict[int, int]:
    """Return the training rows to keep, by class, from `3:100` or a list of such pairs.

    Raise UserError for anything else, unknown classes, no rows, and a class with two numbers of rows.
    """
    found: dict[int, int] = {}
    for pair in asked if isinstance(asked, list) else [asked]:
        name, _, rows = str(pair).rpartition(":")
        if not name or not rows.isdecimal():
            cure = f"write class:rows, as in {option}=[3:100]"
            if isinstance(pair, int | float):
                cure += ", and in quotes in a YAML file, which reads 3:10 as 190: ['3:10']"
            raise UserError(f"{option}={pair}: {cure}")
        label, count = class_number(option, name, source.class_names), int(rows)
        check_classes(option, [label], source.classes)
        if not COUNT.hold(count):
            raise UserError(
                f"{option}={pair}: keep at least 1 row of each class, at most {COUNT.high:,}"
            )
        if found.setdefault(label, count) != count:
            raise UserError(f"{option} names class {label} twice: name it once")
    return found


def _numbered(option: str, asked: Any, names: Sequence[str]) -> Any:
    if isinstance(asked, list):
        return [class_number(option, item, names) for item in asked]
    return class_number(option, asked, names)
