"""The last lines of a run: where its row and its table are, and a command to try next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from runner.naming import as_typed, python_path
from runner.results import Result

DEFAULT_ROOT = "outputs"


def last_lines(result: Result, root: str, overrides: Sequence[str]) -> str:
    """Return where the row of a run is, and the commands for its table and for more seeds."""
    shown = [each for each in overrides if each.startswith("table.")]
    table = shlex.join([*of_results(result.name, root), *shown])
    again = shlex.join(["seed=0,1,2", *(each for each in overrides if not each.startswith("seed="))])
    program = f"{python_path(overrides)}python -m runner"
    return (
        f"row:   {Path(root) / 'results' / result.name / result.key}.json\n"
        f"table: python -m runner.report {table}\n"
        f"next:  {program} -m {again}   # three seeds give intervals; add method=a,b to compare"
    )


def of_results(name: str, root: str) -> list[str]:
    """Return the options by which reports and figures find the results of a name."""
    elsewhere = [] if root == DEFAULT_ROOT else [as_typed("paths.root", root)]
    return [as_typed("name", name), *elsewhere]
