"""Bounds of numbers. Each stands in the annotation of its field, and is checked before any work.

    lr: Annotated[float, RATE]

A value outside is refused by the name of its option. A field that allows `None` or a word is checked if
it holds a number; of a list, every item is checked.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from data.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """The closed interval from `low` to `high`. `above` and `below` exclude its ends; `zero` allows 0
    beside it. Floats must be finite unless `infinite` allows infinity (which then means no limit)."""

    low: float
    high: float
    above: bool = False
    below: bool = False
    zero: bool = False
    infinite: bool = False

    def hold(self, value: float) -> bool:
        """Return whether the value lies within the bounds."""
        if isinstance(value, float) and math.isinf(value):
            return self.infinite and value > 0
        if self.zero and value == 0:
            return True
        at_least = value > self.low if self.above else value >= self.low
        at_most = value < self.high if self.below else value <= self.high
        return at_least and at_most

    def __str__(self) -> str:
        low, high = _written(self.low), _written(self.high)
        parts = [f"above {low}" if self.above else f"at least {low}"]
        parts.append(f"below {high}" if self.below else f"at most {high}")
        text = " and ".join(parts)
        text = f"0, or {text}" if self.zero else text
        return f"{text}, or inf" if self.infinite else text


# Sizes. Their upper ends are far beyond what any machine holds, and within what torch takes.
COUNT = Bounds(1, 2**31 - 1)  # of rows, pixels, threads, layers: at least one
NUMBER = Bounds(0, 2**31 - 1)  # the same, or none
EPOCHS = Bounds(0, 100_000)  # passes, rounds and samples, which each take time
ROUNDS = Bounds(1, 100_000)  # the same, at least one
SIZE = Bounds(1, 65_536)  # of an image, a layer or a patch: what a model is built from
SEED = Bounds(0, 2**63 - 1)

# Rates and weights. Smaller ones than 1e-12 do nothing in float32; larger ones than 1e6 do nothing good.
RATE = Bounds(1e-12, 1e6, zero=True)
POSITIVE = Bounds(1e-12, 1e6)
STRENGTH = Bounds(1e-12, 1e12, zero=True)  # of a penalty or a subtraction, whose scale is the user's
LOSS = Bounds(1e-12, 1e12, infinite=True)  # in nats, at which a training stops; inf means never
SHARE = Bounds(0, 1)
POSITIVE_SHARE = Bounds(0, 1, above=True)
BELOW_ONE = Bounds(0, 1, below=True)
INSIDE_SHARE = Bounds(0, 1, above=True, below=True)


def check_bounds(option: str, holder: Any) -> None:
    """Raise UserError if a number of a dataclass lies outside the bounds of its field.

    `option` is the option that holds the dataclass (`training`, `method`, …), empty for the root.
    """
    for name, bounds in bounds_of(type(holder)):
        found = getattr(holder, name)
        for value in found if isinstance(found, list | tuple) else [found]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not bounds.hold(value):
                option_name = f"{option}.{name}" if option else name
                raise UserError(f"{option_name}={_short(found)}: it must be {bounds}")


def bounds_of(cls: type) -> Iterator[tuple[str, Bounds]]:
    """Yield the bounded fields of a dataclass: name and bounds."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        yield from ((name, bounds) for bounds in _within(hint))


def _within(hint: Any) -> Iterator[Bounds]:
    """Yield the bounds in a type, also inside `list[…]` and `… | None`."""
    if get_origin(hint) is Annotated:
        yield from (extra for extra in get_args(hint) if isinstance(extra, Bounds))
    for argument in get_args(hint):
        yield from _within(argument)


def _written(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
