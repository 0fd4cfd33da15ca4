"""Sweeps: kills, cells that are stored already, and cells on two processes of this machine."""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from runner.bench import Figure
from tests.bench.startup import python
from tests.killing import killed

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

# A sweep to kill, whose trainings take seconds, and the seed of the moments.
KILLS, MOMENTS, MINUTES = 20, 1, 0.02
KILLED = [*QUICK, "method=finetune,random_labels", "method.epochs=300", "seed=0,1"]
KILLED += ["training.epochs=1000", f"training.checkpoint_minutes={MINUTES}", "tracking=off", "threads=1"]

ALL = ["-m", "runner", "-m", "tracking=off", "threads=1"]


def figures() -> Iterator[Figure]:
    yield from kills()
    yield from again()
    yield from parallel()


def kills() -> Iterator[Figure]:
    """Yield what is wrong with a sweep that was killed at random moments, and what it lost."""
    with tempfile.TemporaryDirectory() as folder:
        found = killed(["-m", *KILLED], KILLS, MOMENTS, Path(folder))
    name = f"a sweep killed {found.kills} times"
    yield Figure(f"{name}: differing", found.differing, "results", "all", found.results)
    yield Figure(f"{name}: finished and made again", found.twice, "stages", "all", found.stages)
    baseline = "training.checkpoint_minutes"
    yield Figure(f"{name}: training lost by one", found.lost, "s", baseline, 60 * MINUTES)


def again() -> Iterator[Figure]:
    """Yield the seconds of saying a stored sweep again, beside those of each cell alone, and of listing
    it."""
    with tempfile.TemporaryDirectory() as folder:
        root = f"paths.root={folder}"
        python(*ALL, *STORED, root, "hydra/launcher=local")
        seconds = taken(*ALL, *STORED, root)
        one = [*QUICK, "method=finetune", "seed=7", "tracking=off", "threads=1"]
        alone = CELLS * taken("-m", "runner", *one, root)
        name = f"{CELLS} stored cells said again, in one process"
        yield Figure(name, seconds, "s", "each alone, one timed", alone)
        plan = taken(*ALL, *STORED, root, "plan=true")
        yield Figure("the same listed by plan=true", plan, "s", "said again", seconds)


def parallel() -> Iterator[Figure]:
    """Yield the seconds of a sweep on two processes, beside half those of its distinct trainings."""
    with tempfile.TemporaryDirectory() as folder:
        root = f"paths.root={folder}"
        whole = taken(*ALL, *LONG, root, "hydra/launcher=local", "hydra.launcher.workers=2")
        half = seconds_in(Path(folder) / "store") / 2
    yield Figure(
        "24 cells on 2 local processes", whole, "s", "seconds of the distinct trainings / 2", half
    )


def taken(*arguments: str) -> float:
    """Return the seconds of a fresh interpreter's work."""
    start = time.perf_counter()
    python(*arguments)
    return time.perf_counter() - start


def seconds_in(store: Path) -> float:
    """Return the seconds that all trainings in a store took."""
    return sum(json.loads(path.read_text())["seconds"] for path in store.glob("*/*/cost.json"))
