"""Trackers: of a W&B run, or of nothing."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.tracking.sections import (
    AXES,
    CELL,
    CONFUSION,
    LEAKING,
    MODELS,
    PASS,
    PHASE,
    POINTS,
    SCORED,
    rows_of,
    scalars,
)

if TYPE_CHECKING:  # results and metrics are read by the runs that have some
    from metrics.metric import Matrix
    from runner.results import Result


class Tracker:
    """A tracker that tracks nothing."""

    @property
    def written(self) -> bool:
        """True if a W&B run holds all that was tracked."""
        return False

    def request(self, facts: Mapping[str, Any]) -> None:
        """Track the facts of the request: the number of rows in `forget`, and the classes in `gone`."""

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        """Track one point of a stage's curves, such as the loss of an epoch."""

    def result(self, result: "Result", matrices: "Mapping[str, Mapping[str, Matrix]]") -> None:
        """Track the result of the run, and its matrices by role and name."""


class WandbTracker(Tracker):
    """A tracker that writes to a W&B run, which `track` opens and closes.

    A failure of W&B ends the tracking and not the run: `tell` receives its reason.
    """

    def __init__(self, run: Any, classes: Sequence[str], tell: Callable[[Exception], None]) -> None:
        self.run = run
        self.classes = list(classes)
        self._tell = tell
        self._failed = False
        self._defined: set[str] = set()
        self._points: Counter[str] = Counter()
        # The last values of a run that goes on online.
        self._there = dict(run.summary) if run.resumed else {}

    @property
    def written(self) -> bool:
        return not self._failed

    def fail(self, error: Exception) -> None:
        """End the tracking, and tell of the first failure alone: others follow from it."""
        if not self._failed:
            self._failed = True
            self._tell(error)

    def request(self, facts: Mapping[str, Any]) -> None:
        """Note the number of forgotten rows, and mark the classes that are forgotten as a whole."""
        for label in facts["gone"]:
            self.classes[label] += " (forgotten)"
        forgotten = {"forgotten_rows": facts["forget"]}
        self._ask(self.run.config.update, forgotten, allow_val_change=True)

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        """Log a point, unless the run has it: all runs of one plan say the points of a section in one
        order, whichever of them trained, so the number of a point tells which one it is."""
        phase = PHASE.get(stage, stage)
        section = f"{phase}_{SCORED}" if PASS in values else phase
        number = f"{POINTS}/{section}"
        self._points[section] += 1
        if self._points[section] <= self._there.get(number, 0):
            return
        point = {f"{section}/{name}": value for name, value in values.items()}
        axis = next((f"{section}/{name}" for name in AXES if name in values), None)
        self._define(number, hidden=True)
        for name in point if axis is not None else ():
            # the axis takes the place of W&B's count of points
            self._define(name, **({"hidden": True} if name == axis else {"step_metric": axis}))
        self._ask(self.run.log, {**point, number: self._points[section]})

    def _define(self, name: str, **settings: Any) -> None:
        """Tell W&B once how to show a name."""
        if name not in self._defined:
            self._defined.add(name)
            self._ask(self.run.define_metric, name, **settings)

    def result(self, result: "Result", matrices: "Mapping[str, Mapping[str, Matrix]]") -> None:
        found: dict[str, Any] = dict(scalars(result))
        found[MODELS] = _table(*rows_of(result))
        for role, each in matrices.items():
            if CONFUSION in each:
                found[f"{CONFUSION}/{role}"] = self._confusion(role, each[CONFUSION])
        if LEAKING in (of_cell := matrices.get(CELL, {})):
            data = [
                [int(row), self.classes[int(label)], score] for row, label, score in of_cell[LEAKING]
            ]
            found[f"tables/{LEAKING}"] = _table(["row", "class", "score"], data)
        new = {name: value for name, value in found.items() if self._there.get(name) != value}
        self._ask(self.run.log, new)

    def _confusion(self, role: str, counts: "Matrix") -> Any:
        """Return a chart of a confusion matrix (K, K): true class against predicted class, by name."""
        import wandb

        columns = ["Actual", "Predicted", "nPredictions"]  # the names that W&B's chart knows
        data = [
            [self.classes[true], self.classes[predicted], float(count)]
            for true, line in enumerate(counts)
            for predicted, count in enumerate(line)
        ]
        return wandb.plot_table(
            vega_spec_name="wandb/confusion_matrix/v1",
            data_table=_table(columns, data),
            fields={column: column for column in columns},
            string_fields={"title": f"Confusion matrix, {role}"},
        )

    def _ask(self, call: Callable[..., Any], *values: Any, **options: Any) -> None:
        """Call the client, and never again once it has failed."""
        import wandb

        if self._failed:
            return
        try:
            call(*values, **options)
        except (wandb.Error, OSError, RuntimeError) as error:
            self.fail(error)


def _table(columns: list[Any], data: list[Any]) -> Any:
    import wandb

    return wandb.Table(columns=columns, data=data)
