"""Benchmarks: every figure beside a named baseline that is measured in the same run.

    python -m runner.bench [group …] [--json FILE]

A group is a module of `tests/bench` with a function `figures`; run from the checkout.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from tabulate import tabulate

from data.errors import UserError
from runner.errors import exit_with_message

GROUPS = "tests.bench"


@dataclass(frozen=True)
class Figure:
    """A measured value beside its baseline's."""

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float

    @property
    def ratio(self) -> float:
        """The value divided by the baseline's."""
        return self.value / self.baseline_value


def seconds(*bodies: Callable[[], object], repeats: int = 5) -> list[float]:
    """Return the median seconds of each body, measured in turns.

    The first body has the median of its times. Every other one has that time multiplied by the median
    ratio of its time to the first body's in the same turn, since a slow spell of the machine outlasts a
    turn. One more turn comes first and is not counted.
    """
    times: list[list[float]] = [[] for _ in bodies]
    for _ in range(repeats + 1):
        for body, taken in zip(bodies, times, strict=True):
            start = time.perf_counter()
            body()
            taken.append(time.perf_counter() - start)
    first = times[0][1:]
    usual = statistics.median(first)
    return [
        usual * statistics.median(a / b for a, b in zip(taken[1:], first, strict=True))
        for taken in times
    ]


def main(arguments: list[str]) -> None:
    """Measure the named groups, print a table of their figures, and write them as JSON if asked to.

    Raises UserError outside the checkout, where the groups are missing.
    """
    try:
        package = import_module(GROUPS)
    except ModuleNotFoundError as error:
        raise UserError("the benchmarks are in tests/bench: run from the checkout") from error
    groups = sorted(module.name for module in iter_modules(package.__path__))
    parser = argparse.ArgumentParser(prog="python -m runner.bench", description=__doc__)
    known = ", ".join(groups)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {known}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(groups):
        parser.error(f"no group {', '.join(sorted(unknown))}: choose from {known}")
    figures = []
    for group in options.groups or groups:
        for figure in import_module(f"{GROUPS}.{group}").figures():
            figures.append(asdict(figure) | {"ratio": figure.ratio})
            print(f"{group}: {figure.name}: {figure.value:.3g} {figure.unit}", file=sys.stderr)
    print(tabulate(figures, headers="keys", floatfmt=".3g"))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    with exit_with_message():
        main(sys.argv[1:])
