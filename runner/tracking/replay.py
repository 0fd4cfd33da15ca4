"""Replay: the stored curves of a result's models go to a tracker."""

from collections.abc import Callable, Iterable
from pathlib import Path

from data.errors import UserError
from runner.results import Result
from runner.roles import ROLE
from runner.tracking.tracker import Tracker


def track_curves(
    tracker: Tracker, result: Result, roles: Iterable[str], root: Path, say: Callable[[str], None]
) -> None:
    """Track the curves of the models of a result that have these roles. Say which are not stored."""
    from runner.figure.runs import Model  # imports reports, which a run does without

    for role in map(ROLE.__getitem__, roles):
        try:
            points = Model(result, role, root).logged
        except UserError as error:
            say(str(error))
            continue
        for point in points:
            tracker.curve(role.curves, point)
