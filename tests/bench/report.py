"""The report of a thousand stored runs, and the HTML report of three hundred rows."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runner.bench import Figure, seconds
from runner.compose import composed
from runner.pipeline import run
from runner.plan import Plan
from runner.results import Results
from tests.bench.startup import python

RUNS = 1000

ROWS = 300


def figures() -> Iterator[Figure]:
    """Yield the seconds of both reports, beside those of importing their libraries, and the bytes of the
    second."""
    with tempfile.TemporaryDirectory() as folder:
        stored(Path(folder), lines=50, seeds=RUNS // 50)
        yield Figure(f"report of {RUNS} stored runs", *timed(folder, (), "pandas, hydra"))
    with tempfile.TemporaryDirectory() as folder:
        stored(Path(folder), lines=ROWS, seeds=1)
        taken = timed(folder, ("format=html",), "pandas, hydra, torch, matplotlib.figure, jinja2")
        yield Figure(f"HTML report of {ROWS} rows", *taken)
        size = (Path(folder) / "tables" / "many.html").stat().st_size
        text = (Path(folder) / "tables" / "many.md").stat().st_size
    yield Figure(f"HTML report of {ROWS} rows", size / 2**20, "MiB", "its Markdown", text / 2**20)


def timed(folder: str, options: tuple[str, ...], libraries: str) -> tuple[float, str, str, float]:
    """Return the seconds of a report, their unit, and the baseline: the import of libraries."""
    command = ("-m", "runner.report", "name=many", f"paths.root={folder}", *options)
    whole, imports = seconds(
        lambda: python(*command), lambda: python("-c", f"import {libraries}"), repeats=3
    )
    return whole, "s", f"import {libraries}", imports


def stored(root: Path, lines: int, seeds: int) -> None:
    """Store results of several lines and seeds, copies of one real result with its models."""
    quick = ["data.limit=20", "training.epochs=1", "tracking=off", f"paths.root={root}", "name=many"]
    result = run(Plan.of(*composed(quick)), quick)
    assert result is not None
    results = Results(root / "results")
    matrices = results.matrices(result)
    for number in range(lines * seeds):
        method, seed = divmod(number, seeds)
        names = {**result.names, "method": f"method{method}"}
        titles = {group: title for group, title in result.titles.items() if group != "method"}
        copy = replace(
            result,
            key=f"{number:016x}",
            seed=seed,
            cells={"unlearned": f"cell{method}"},
            names=names,
            titles=titles,
        )
        results.write(copy, matrices)
    (root / "results" / "many" / f"{result.key}.json").unlink()
