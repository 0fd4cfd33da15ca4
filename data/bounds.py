"""Bounds of numbers. The annotation of a field holds its bounds, and they are checked before any work.

    lr: Annotated[float, POSITIVE]

The error names the option of a value outside. A field that also takes `None` or a word is checked if it
holds a number. In a list, every item is checked.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data.annotations import marks_of
from data.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """The closed interval from `low` to `high`.

    `above` and `below` exclude the ends. `zero` also allows 0. Numbers must be finite unless `infinite`
    allows infinity, which then means no limit.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    zero: bool = False
    infinite: bool = False

    def hold(self, value: float) -> bool:
        """Return True if the value lies within the bounds."""
        if isinstance(value, float) and math.isinf(value):  # isinf overflows on a large int
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


# Sizes. The upper ends are more than any machine holds and less than torch's limits.
COUNT = Bounds(1, 2**31 - 1)  # of rows, pixels or layers: at least one
NUMBER = Bounds(0, 2**31 - 1)  # the same, possibly none
EXAMPLES = Bounds(1, 2**63 - 1)  # rows counted over all passes
THREADS = Bounds(1, 1024)  # OpenMP ends the process if it cannot start a thread
EPOCHS = Bounds(0, 100_000)  # passes, rounds and samples, which each take time
ROUNDS = Bounds(1, 100_000)  # the same, at least one
SIZE = Bounds(1, 65_536)  # of an image, a layer or a patch: a model is built from these
SEED = Bounds(0, 2**63 - 1)

# Rates and weights. Below 1e-12 they have no effect in float32; above 1e6 they have no use.
RATE = Bounds(1e-12, 1e6, zero=True)
POSITIVE = Bounds(1e-12, 1e6)  # also of a learning rate: no passes are `epochs=0`
MOMENTUM = Bounds(1e-12, 1, zero=True, below=True)  # at 1 and above, SGD's velocity never decays
STRENGTH = Bounds(1e-12, 1e12, zero=True)  # of a penalty or a subtraction, whose scale is the user's
LOSS = Bounds(1e-12, 1e12, infinite=True)  # in nats, at which a training stops; inf means never
SHARE = Bounds(0, 1)
POSITIVE_SHARE = Bounds(0, 1, above=True)
BELOW_ONE = Bounds(0, 1, below=True)
INSIDE_SHARE = Bounds(0, 1, above=True, below=True)
PIXEL = Bounds(-1e6, 1e6)  # a mean, in units of the pixels' range
NOISE = Bounds(1 / 255, 1)  # a standard deviation in the same units: less vanishes in stored bytes


def check_bounds(option: str, holder: Any) -> None:
    """Raise UserError if a number lies outside the bounds of its field.

    `option` holds the dataclass `holder` (`training`, `method`, …). It is empty for the root.
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
    """Yield name and bounds of each bounded field of a dataclass."""
    return marks_of(cls, Bounds)


def _written(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
