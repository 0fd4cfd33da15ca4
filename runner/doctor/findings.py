"""Findings: what a request, its attacks and its training will be able to tell, each with a cure."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from data.requests import Request
from methods.recording.batch_updates import UpdateRecorder
from methods.recording.estimates import share_of_batches_hit
from metrics.attacks.report import RATES, HeldOutAttack
from metrics.evidence import Needs
from models.precision import is_emulated
from runner.launch.task import labels
from runner.pipeline import checked_request
from runner.plan import Plan
from runner.remarks import EMULATED
from runner.stages.workspace import Workspace

# The share of batches above which subtracting every hit update undoes nearly all of the training.
NEARLY_ALL = 0.5

# The largest standard error of an attack's AUC at which a margin of 0.03 can be told.
AUC_ERROR = 0.015


class Finding(NamedTuple):
    """One sentence about a run, and the cure if it is a fault; an empty one if the sentence names it."""

    says: str
    cure: str | None = None

    def __str__(self) -> str:
        return f"ok    {self.says}" if self.cure is None else f"look  {': '.join(filter(None, self))}"


def of_cells(cells: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Yield the finding on the cell that is examined, if there are several, by their overrides."""
    if len(cells) > 1:
        yield Finding(f"the first of {len(cells)} cells is examined: {labels(cells)[0]}")


def of_precision(plan: Plan) -> Iterator[Finding]:
    """Yield the finding on a precision that this processor emulates."""
    if is_emulated(plan.recipe.precision, plan.device):
        yield Finding(*EMULATED)


def of_request(ws: Workspace, facts: dict[str, Any]) -> Iterator[Finding]:
    """Yield the findings on the rows to forget, and the warnings of the methods.

    Raise UserError if the request cannot be served.
    """
    with _warnings() as warnings:
        checked_request(ws)
    share = facts["forget"] / facts["all"]
    yield Finding(f"{facts['forget']} of {facts['all']} training rows are to be forgotten ({share:.2%})")
    yield from (Finding(warning, "") for warning in dict.fromkeys(warnings))
    yield _of_batches(ws.plan, facts)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Yield a list that the warnings of the methods are added to, instead of being printed."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("methods")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def _of_batches(plan: Plan, facts: dict[str, Any]) -> Finding:
    size = plan.recipe.batch_size
    hit = share_of_batches_hit(facts["all"], facts["forget"], size)
    says = f"{hit:.1%} of the training's batches hold a row to forget"
    if not issubclass(plan.method.records or object, UpdateRecorder) or hit <= NEARLY_ALL:
        return Finding(says)
    return Finding(
        says,
        "a method that subtracts whole updates undoes as much of the training: forget fewer rows, lower "
        "training.batch_size, or read a record of single rows "
        "(method=per_sample_amnesiac recorder=[per_sample])",
    )


def of_attacks(ws: Workspace, request: Request, facts: dict[str, Any]) -> Iterator[Finding]:
    """Yield the findings on the rows that attacks on membership compare."""
    heldout = len(request.test) or len(ws.dataset.test)
    whole = {*ws.dataset.train.only(request.rows).labels.tolist()} <= {*facts["gone"]}
    names: dict[int, list[str]] = {}
    for attack in _attacks(ws.plan):
        names.setdefault(attack.others(heldout, whole), []).append(attack.option)
    for others, attacks in names.items():
        if others:
            yield from _of_rows(" and ".join(attacks), request, others)


def _attacks(plan: Plan) -> list[HeldOutAttack]:
    """Return the attacks that will have their evidence."""
    if not plan.evaluation.train:
        return []
    lacking = Needs.REFERENCES if plan.reference is None else Needs.NOTHING
    found = [metric for metric in plan.metrics if isinstance(metric, HeldOutAttack)]
    return [attack for attack in found if not attack.needs & lacking]


def _of_rows(attacks: str, request: Request, others: int) -> Iterator[Finding]:
    """Yield the findings on attacks that rank the rows to forget against so many other rows."""
    members, more = len(request.rows), ", or name more classes" if len(request.test) else ""
    for least in RATES.values():
        rate = f"a false-positive rate of {1 / least:.1%}"
        if others >= least:
            yield Finding(f"{rate} can be resolved by the {others} test rows of {attacks}")
        else:
            says = f"{rate} needs {least} test rows of its kind, and there are {others} for {attacks}"
            yield Finding(says, f"the true-positive rate is left out; read the AUC{more}")
    # Mann–Whitney: SE of the AUC of equal populations is √((n⁺ + n⁻ + 1) / (12 n⁺ n⁻))
    error = math.sqrt((members + others + 1) / (12 * members * others))
    says = f"{members} members against {others} test rows give the AUC of {attacks} a standard error of "
    says += f"{error:.3f}"
    if error <= AUC_ERROR:
        yield Finding(says)
    else:
        yield Finding(says, f"forget more rows, or take AUCs within {2 * error:.2f} as equal")
