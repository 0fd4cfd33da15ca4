"""Findings: what a request, its attacks and its training will be able to tell, each with a cure."""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from data.requests import Request
from data.split import Dataset
from methods.recording.estimates import share_of_batches_hit
from runner.launch.task import labels
from runner.plan import Plan
from runner.plan.checks import check_request

# The share of batches above which subtracting every hit update undoes nearly all of the training.
NEARLY_ALL = 0.5

# The largest standard error of an attack's AUC at which a margin of 0.03 can be told.
AUC_ERROR = 0.015


class Finding(NamedTuple):
    """One sentence about a run, and the cure if it is a fault."""

    says: str
    cure: str | None = None

    def __str__(self) -> str:
        return f"ok    {self.says}" if self.cure is None else f"look  {self.says}: {self.cure}"


def of_cells(cells: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Yield the finding on the cell that is examined, if there are several, by their overrides."""
    if len(cells) > 1:
        yield Finding(f"the first of {len(cells)} cells is examined: {labels(cells)[0]}")


def of_request(plan: Plan, request: Request, facts: dict[str, Any]) -> Iterator[Finding]:
    """Yield the findings on the rows to forget, and the warnings of the methods.

    Raise UserError if the request cannot be served.
    """
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("methods")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        check_request(plan, facts)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    share = facts["forget"] / facts["all"]
    yield Finding(f"{facts['forget']} of {facts['all']} training rows are to be forgotten ({share:.2%})")
    for warning in warnings:
        says, _, cure = warning.rpartition("; ")
        yield Finding(says or warning, cure)
    yield _of_batches(plan, facts)


def _of_batches(plan: Plan, facts: dict[str, Any]) -> Finding:
    size = plan.recipe.batch_size
    hit = share_of_batches_hit(facts["all"], facts["forget"], size)
    says = f"{hit:.1%} of the training's batches hold a row to forget"
    if plan.record_of(plan.method) is None or hit <= NEARLY_ALL:
        return Finding(says)
    return Finding(
        says,
        "a method that subtracts whole updates undoes as much of the training: forget fewer rows, lower "
        "training.batch_size, or read a record of single rows (recorder=[per_sample])",
    )


def of_attacks(dataset: Dataset, request: Request) -> Iterator[Finding]:
    """Yield the findings on the sizes of membership attacks."""
    members, others = len(request.rows), len(request.test) or len(dataset.test)
    yield from (_of_rate(others, rate) for rate in (0.01, 0.001))
    # Mann–Whitney: SE of the AUC of equal populations is √((n⁺ + n⁻ + 1) / (12 n⁺ n⁻))
    error = math.sqrt((members + others + 1) / (12 * members * others))
    says = f"{members} members against {others} test rows give an AUC a standard error of {error:.3f}"
    if error <= AUC_ERROR:
        yield Finding(says)
    else:
        yield Finding(says, f"forget more rows, or take AUCs within {2 * error:.2f} as equal")


def _of_rate(others: int, rate: float) -> Finding:
    least = round(1 / rate)
    if others >= least:
        return Finding(f"a false-positive rate of {rate:.1%} can be resolved by {others} test rows")
    return Finding(
        f"a false-positive rate of {rate:.1%} needs {least} test rows of its kind, there are {others}",
        "the true-positive rate is left out; read the AUC, or name more classes",
    )
