"""Standings: how each cell stands, from the store, the results and the notes of sweeps."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from conf import Until
from data.errors import UserError
from data.meanings import meaning
from metrics.metric import Metric
from runner.launch.stored import stands
from runner.plan import Plan
from runner.results import Result, Results
from runner.state.cells import Cell
from runner.state.states import Note, Notes, State
from runner.state.trainings import Training, trainings
from runner.store import Store

# Options that may choose metrics and their evidence.
SCORING = re.compile(r"[+~]*(metric|evaluation|experiment|scale)\b")


@dataclass(frozen=True)
class Standing:
    """A cell's state, the reason in words where there is one, and its trainings."""

    cell: Cell
    state: State
    why: str = ""
    trainings: list[Training] = field(default_factory=list)

    @property
    def is_left(self) -> bool:
        """Whether the cell's command, said again, makes something: not that of a refused cell."""
        return self.state.is_left and self.cell.plan is not None

    @property
    def missing(self) -> list[Training]:
        """The trainings that are not stored."""
        return [each for each in self.trainings if not each.stored]


def standings(cells: Iterable[Cell], notes: Notes) -> list[Standing]:
    """Return how the cells stand. Nothing is trained or written."""
    return [_standing(cell, notes) for cell in cells]


def _standing(cell: Cell, notes: Notes) -> Standing:
    plan = cell.plan
    if plan is None:
        return Standing(cell, State.failed, cell.refused)
    found = trainings(plan, Store(plan.root / "store"))
    state, why = _state(cell, plan, found, notes.get((plan.name, plan.key)))
    if state is State.missing:
        why = "; ".join(filter(None, [why, _no_data(plan)]))
    return Standing(cell, state, why, found)


def _no_data(plan: Plan) -> str:
    """Return the sentence on a missing file of data that no run fetches; empty if none is missing."""
    try:
        for each in (plan, plan.public):
            if each is not None:
                each.source.find_files(each.data_root)
    except UserError as error:
        return str(error)
    return ""


def _state(cell: Cell, plan: Plan, found: Iterable[Training], note: Note | None) -> tuple[State, str]:
    """Return the state of a cell with a plan, and the reason. The note of a run counts before an earlier
    result, and a failure only if there is something left to do."""
    if note is not None and note.state is State.running:
        return State.running, note.why
    absent = any(not each.stored for each in found)
    if plan.until is not Until.end:
        lacks, result = "", None
    else:
        result = Results(plan.root / "results").find(plan.name, plan.key)
        lacks = "no result" if result is None else _lacks(cell, plan, result)
    if result is not None and result.status == "diverged":
        if stands(result, plan.device, plan.threads):
            return State.diverged, result.error or ""
        lacks = "it diverged, with code or on a device that may be another now"
    if not absent and not lacks:
        return State.hit, ""
    return (State.missing, lacks) if note is None else (note.state, note.why)


def _lacks(cell: Cell, plan: Plan, result: Result) -> str:
    """Return the scores that a cell's result lacks; nothing if the same options of scoring made it.

    A metric that had no evidence has left no trace, so that its absence alone tells nothing.
    """
    if _scoring(result.overrides) == _scoring(cell.overrides):
        return ""
    lacking = lacking_scores(plan.metrics, result)
    return f"no score of {', '.join(lacking)}" if lacking else ""


def _scoring(overrides: Iterable[str]) -> list[str]:
    """Return the overrides that may choose metrics and their evidence."""
    return sorted(text for text in overrides if SCORING.match(text))


def lacking_scores(metrics: Iterable[Metric], result: Result) -> list[str]:
    """Return the metrics of which a result has no score, nor a reason why there is none.

    A result that was written before results said what their scores mean lacks nothing. Older results
    give the reasons by the names of classes.
    """
    if not result.about:
        return []
    not_finite = {name for names in result.not_finite.values() for name in names}
    return [
        metric.option
        for metric in metrics
        if not metric.about().keys() & result.about.keys()
        and all(meaning(name, metric.about()) is None for name in not_finite)
        and not {metric.option, type(metric).__name__} & result.undefined.keys()
    ]
