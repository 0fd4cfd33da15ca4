"""The shape of a result: what a table reads, without which a row is damaged."""

from typing import TYPE_CHECKING

from runner.roles import ROLE

if TYPE_CHECKING:
    from runner.results import Result


def check_shape(result: "Result") -> None:
    """Raise ValueError if a result lacks what a table reads. A row without a digest may be damaged."""
    if missing := {"dataset", "model", "scenario", "method"} - result.names.keys():
        raise ValueError(f"its names lack {', '.join(sorted(missing))}")
    if unknown := {*result.scores, *result.costs, *result.weights} - ROLE.keys():
        raise ValueError(f"there is no role {', '.join(sorted(unknown))}")
    if result.status not in ("done", "diverged") or bool(result.scores) != (result.status == "done"):
        raise ValueError(f"its status is {result.status}")
    if lacking := result.scores.keys() - (result.costs.keys() & result.weights.keys()):
        raise ValueError(f"{', '.join(sorted(lacking))} has no costs or no weights")
    each = [*result.scores.values(), *result.costs.values()]
    if not all(isinstance(value, int | float) for found in each for value in found.values()):
        raise ValueError("a score is no number")
    for other in result.references.values():
        if lacking := {"weights", "scores", "costs"} - other.keys():
            raise ValueError(f"a reference lacks {', '.join(sorted(lacking))}")
