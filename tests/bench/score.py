"""Scoring three hundred stored results again."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from metrics.metric import Metric
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.pipeline import run
from runner.plan import Plan
from runner.results import Result, Results
from runner.score.again import Again
from runner.store import Store
from runner.store.artefact import IDENTITY
from tests.bench.startup import python

RUNS = 300

FEW = 10  # results that are scored one by one


def figures() -> Iterator[Figure]:
    """Yield the seconds of scoring all results in this process, beside those of scoring each as if there
    were no other, and of importing the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan.of(
            *composed(["training.epochs=1", "tracking=off", "threads=1", f"paths.root={folder}"])
        )
        result = run(plan)
        assert result is not None
        store, results = Store(Path(folder) / "store", print), Results(Path(folder) / "again")
        copies = [copy_of(result, number, store) for number in range(RUNS)]
        for copy in copies:
            results.write(copy, {})

        def alone() -> None:
            for copy in copies[:FEW]:
                score([copy], store, results, plan.metrics)

        together, few, imports = seconds(
            partial(score, copies, store, results, plan.metrics),
            alone,
            lambda: python("-c", "import torch, hydra"),
            repeats=2,
        )
    name = (
        f"{RUNS} stored digits results scored again, {len(plan.metrics)} default metrics, 6 models each"
    )
    yield Figure(name, together, "s", f"each alone, {FEW} timed and scaled to all", few * RUNS / FEW)
    yield Figure(name, together, "s", "import torch, hydra", imports)


def score(copies: list[Result], store: Store, results: Results, metrics: list[Metric]) -> None:
    """Score results together. All have their evidence."""
    again = Again(store, results, metrics, print)
    assert all(again.score(copy) for copy in copies)


def copy_of(result: Result, number: int, store: Store) -> Result:
    """Return a copy of a result with an unlearned model of its own, of which copies of the predictions
    are stored. The original and the retrained models are the same in all copies, as in a sweep."""
    weights = f"{number:064x}"
    artefacts = []
    for stage, key in result.artefacts:
        source = store.root / stage / key
        identity = json.loads((source / IDENTITY).read_text())
        if stage == "predict" and identity["weights"] == result.weights["unlearned"]:
            key = f"{number:08x}{key[:8]}"
            shutil.copytree(source, store.root / stage / key)
            (store.root / stage / key / IDENTITY).write_text(
                json.dumps({**identity, "weights": weights})
            )
        artefacts.append((stage, key))
    return replace(
        result,
        key=f"{number:016x}",
        weights={**result.weights, "unlearned": weights},
        artefacts=artefacts,
    )
