"""Names of all that a W&B run holds, as section/name.

`pretrain/…`, `before/…`, `unlearn/…`, `repair/…` and `retrain/…` are the curves of a phase, each with an
axis of its own. `final/…` and `cost/…` are the scores and costs of the unlearned model, `gap/…` its
scores minus those of the reference, and `abs_gap/…` their absolute values. Other models have the same
sections behind their role: `reference/final/…`, `repaired/gap/…`. `cell/…` are scores of all seeds, or
the means of their values.
`points/…` number the points of each section of curves, so that a run that goes on knows what it has.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from data.meanings import key_of
from runner.roles import REFERENCE, UNLEARNED

if TYPE_CHECKING:  # a report needs no torch
    from runner.results import Result

# The suffix of the curves of `evaluation.every`, whose axis is the number of passes.
SCORED = "scores"

# The section of a group of curves whose name is that of a model.
PHASE = {REFERENCE.curves: "retrain"}

# Names of the values that curves run over. The first that a point has is its axis: the epochs of a
# method that trains in rounds begin anew in each.
EPOCH, PASS = "epoch", "pass"
AXES = ("round", EPOCH, PASS, "step")

# The section of the numbers of points: the last one that each section of curves has.
POINTS = "points"

# The table of all models and their scores and costs, each of which is also a number of its own.
MODELS = "tables/models"

# The matrix that is tracked as a chart, the one of a cell that is tracked as a table, and the key of all
# that is a cell's.
CONFUSION, LEAKING, CELL = "confusion", "leaking_rows", "cell"

# The score that a sweep minimises: the average of absolute gaps, by the name of its metric.
AVERAGE = "average_gap"


def prefix_of(role: str) -> str:
    """Return what stands before the sections of a model: nothing for the unlearned one."""
    return "" if role == UNLEARNED.name else f"{role}/"


def name_of(column: str, scores: Mapping[str, Any], of_cells: Mapping[str, Any]) -> str:
    """Return the section/name of a column of the table, for the unlearned model: a score of a model, a
    score of a cell, or else a cost, as remarks and logged values are.

    `scores` and `of_cells` have the names of scores as keys; a number may stand there as `<k>`.
    """
    if key_of(column, of_cells) is not None:
        return f"{CELL}/{column}"
    return f"{'cost' if key_of(column, scores) is None else 'final'}/{column}"


def scalars(result: "Result") -> dict[str, float]:
    """Return every number of a result by section/name; the mean of a score of several values."""
    cell = result.cell_scores
    found = {name_of(name, {}, cell): _mean(value) for name, value in cell.items() if value != []}
    for role, scores in result.scores.items():
        prefix = prefix_of(role)
        values = {**result.costs.get(role, {}), **scores}
        found |= {f"{prefix}{name_of(name, scores, {})}": value for name, value in values.items()}
        for section, gaps in _gaps(result, role).items():
            found |= {f"{prefix}{section}/{name}": gap for name, gap in gaps.items()}
    return found


def _gaps(result: "Result", role: str) -> dict[str, Mapping[str, float]]:
    """Return the gaps of a model's scores to those of the reference, and their absolute values.

    A score that compares with the reference already has no gap.
    """
    scores, reference = result.scores[role], result.scores.get(REFERENCE.name)
    if reference is None or role == REFERENCE.name:
        return {}
    plain = [name for name in scores if not result.about.get(name, {}).get("paired")]
    gaps = {name: scores[name] - reference[name] for name in plain if name in reference}
    absolute = {name: abs(gap) for name, gap in gaps.items()}
    if AVERAGE in scores:
        absolute["average"] = scores[AVERAGE]
    return {"gap": gaps, "abs_gap": absolute}


def rows_of(result: "Result") -> tuple[list[str], list[list[Any]]]:
    """Return the columns and the lines of a table of a result's models and their scores and costs."""
    lines = {role: {**scores, **result.costs.get(role, {})} for role, scores in result.scores.items()}
    names: Sequence[str] = list(dict.fromkeys(name for line in lines.values() for name in line))
    data = [[role, *(line.get(name) for name in names)] for role, line in lines.items()]
    return ["model", *names], data


def _mean(value: float | list[float]) -> float:
    return fmean(value) if isinstance(value, list) else value
