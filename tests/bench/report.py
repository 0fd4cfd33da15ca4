"""The report of a thousand stored runs."""

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


def figures() -> Iterator[Figure]:
    """Yield the seconds of a report, beside those of importing its libraries."""
    with tempfile.TemporaryDirectory() as folder:
        quick = [
            "data.limit=20",
            "training.epochs=1",
            "tracking=off",
            f"paths.root={folder}",
            "name=many",
        ]
        result = run(Plan.of(*composed(quick)))
        assert result is not None
        results = Results(Path(folder) / "results")
        for number in range(RUNS):  # 50 methods of 20 seeds, copies of one real result
            method, seed = divmod(number, 20)
            names = {**result.names, "method": f"method{method}"}
            cells = {"unlearned": f"cell{method}"}
            copy = replace(result, key=f"{number:016x}", seed=seed, cells=cells, names=names)
            results.write(copy, {})
        (Path(folder) / "results" / "many" / f"{result.key}.json").unlink()
        command = ("-m", "runner.report", "name=many", f"paths.root={folder}")
        whole, imports = seconds(
            lambda: python(*command), lambda: python("-c", "import pandas, hydra"), repeats=5
        )
    yield Figure(f"report of {RUNS} stored runs", whole, "s", "import pandas, hydra", imports)
