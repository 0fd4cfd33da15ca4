"""A likelihood-ratio audit with 16 shadow models of digits, beside as many bare trainings."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from methods.training.loop import fit
from runner import stages
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.pipeline import run
from runner.plan import Plan
from runner.process import prepare
from runner.stages.cell import shadow_plan
from runner.stages.workspace import Workspace
from runner.store import Store
from tests.bench.training import conditions_of

SHADOWS = 16

# The audit of one method, without references: U-LiRA alone.
AUDIT = [
    "dataset=digits",
    "model=small_cnn",
    "method=finetune",
    "scenario=random",
    "evaluation=privacy",
    f"evaluation.shadows={SHADOWS}",
    "evaluation.reference=null",
    "evaluation.references=1",
    "metric=[ulira]",
    "tracking=off",
    "threads=1",
]


def figures() -> Iterator[Figure]:
    """Time the originals of the shadows by their stage, and a whole audit from an empty store."""
    prepare(torch.device("cpu"), threads=1)
    with TemporaryDirectory() as folder:
        made, bare = originals(Path(folder))
    baseline = f"{SHADOWS} × one bare training", SHADOWS * bare
    yield Figure(f"{SHADOWS} shadow originals, small_cnn on digits", SHADOWS * made, "s", *baseline)
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(plan_in(Path(folder)))
        total = time.perf_counter() - started
    yield Figure(f"U-LiRA audit of finetune with {SHADOWS} shadows, in all", total, "s", *baseline)


def originals(root: Path) -> tuple[float, float]:
    """Return the usual seconds of a shadow's original and of a bare training, measured in turns.

    Both train the same number of rows by the same recipe. A bare one stores and logs nothing.
    """
    ws = Workspace(plan_in(root), Store(root / "store"))
    request = stages.request(ws)[0]
    members = [ws.member(shadow_plan(ws.plan, request, number)) for number in range(SHADOWS)]
    split, recipe, architecture = members[0].dataset.train, ws.plan.recipe, ws.plan.architecture

    def bare() -> None:
        fit(architecture.fresh(1, 8, 10, 0), split, recipe, conditions_of(recipe))

    each = iter(members)
    made, plain = seconds(lambda: stages.pretrain(next(each), request), bare, repeats=SHADOWS - 1)
    return made, plain


def plan_in(root: Path) -> Plan:
    return Plan.of(*composed([*AUDIT, f"paths.root={root}"]))
