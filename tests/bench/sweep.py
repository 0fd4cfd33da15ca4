"""Sweeps: cells that are stored already, and cells on two processes of this machine."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from runner.bench import Figure
from tests.bench.startup import python

# Cells of a narrow network on 20 rows per class, with the metrics and references of a default run.
CELLS = 300
QUICK = [
    "data.limit=20",
    "model.widths=[4,8]",
    "model.hidden=16",
    "training.epochs=1",
    "training.warmup=0",
]
STORED = [*QUICK, "method=finetune,random_labels,boundary_shrink", "seed=range(100)"]

# 24 cells of the default run, whose stages take seconds: 6 originals, 6 retrained models, 24 others.
LONG = ["method.epochs=60,61,62,63", "seed=range(6)", "training.epochs=300"]

ALL = ["-m", "runner", "-m", "tracking=off", "threads=1"]


def figures() -> Iterator[Figure]:
    """Yield the seconds of saying a stored sweep again, beside those of each cell alone; of listing it;
    and of a sweep on two processes, beside half the seconds of its distinct trainings."""
    with tempfile.TemporaryDirectory() as folder:
        root = f"paths.root={folder}"
        python(*ALL, *STORED, root, "hydra/launcher=local")
        again = taken(*ALL, *STORED, root)
        alone = taken(
            "-m", "runner", *QUICK, "method=finetune", "seed=7", "tracking=off", "threads=1", root
        )
        yield Figure(
            f"{CELLS} stored cells said again, in one process",
            again,
            "s",
            "each alone, one timed",
            alone * CELLS,
        )
        plan = taken(*ALL, *STORED, root, "plan=true")
        yield Figure("the same listed by plan=true", plan, "s", "said again", again)
        shutil.rmtree(folder)
        parallel = taken(*ALL, *LONG, root, "hydra/launcher=local", "hydra.launcher.workers=2")
        yield Figure(
            "24 cells on 2 local processes",
            parallel,
            "s",
            "seconds of the distinct trainings / 2",
            seconds_in(Path(folder) / "store") / 2,
        )


def taken(*arguments: str) -> float:
    """Return the seconds of a fresh interpreter's work."""
    start = time.perf_counter()
    python(*arguments)
    return time.perf_counter() - start


def seconds_in(store: Path) -> float:
    """Return the seconds that all trainings in a store took."""
    return sum(json.loads(path.read_text())["seconds"] for path in store.glob("*/*/cost.json"))
