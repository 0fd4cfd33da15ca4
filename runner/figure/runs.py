"""The runs of a name: their table, and what is kept of every model in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import UserError
from runner.report import Report
from runner.results import Results, Row, models

if TYPE_CHECKING:
    from torch import Tensor

    from metrics.predictions import Matrix
    from runner.store import Artefact

# A line of the table: its setting and its cell.
Line = tuple[str, str]


@dataclass(frozen=True)
class Model:
    """The model of a line for one seed: the one of `role` in a row."""

    row: Row
    role: str
    root: Path

    @property
    def logged(self) -> list[dict[str, float]]:
        """What making it logged, point by point."""
        from runner.roles import ROLE
        from runner.stages import curves_of
        from runner.stages.models import weights_of

        for made in self._artefacts(ROLE[self.role].stage):
            if weights_of(made) == self.row.weights[self.role]:
                return curves_of(made)
        raise self._gone("curves")

    @property
    def logits(self) -> "Tensor":
        """(N, K) its logits of the test set."""
        from runner.stages import logits_of

        for made in self._artefacts("predict"):
            identity = made.identity
            if (identity["weights"], identity["split"]) == (self.row.weights[self.role], "test"):
                return logits_of(made)
        raise self._gone("predictions")

    def matrix(self, name: str) -> "Matrix":
        """A matrix that a metric made of it."""
        found = Results(self.root / "results").matrices(self.row).get(self.role, {})
        if name not in found:
            raise UserError(
                f"{self._text} has no matrix {name}; there are: {sorted(found)}; choose one with "
                f"figure.confusion.matrix=…, or run `{self._again}` again"
            )
        return found[name]

    def _artefacts(self, stage: str) -> "Iterator[Artefact]":
        """What is still stored, and whole, of a stage that the row used."""
        from runner.store import Artefact

        for name, key in self.row.artefacts:
            made = Artefact(stage, key, self.root / "store" / stage / key)
            if name == stage and made.damage(thorough=False) is None:
                yield made

    @property
    def _text(self) -> str:
        return f"the {self.role} model of row {self.row.name}/{self.row.key}"

    @property
    def _again(self) -> str:
        return " ".join(["python -m runner", *self.row.overrides])

    def _gone(self, what: str) -> UserError:
        return UserError(
            f"the {what} of {self._text} are no longer in the store: run `{self._again}` again"
        )


@dataclass(frozen=True)
class Runs:
    """The rows of a name as a table, and the folder that all their results lie in."""

    report: Report
    root: Path

    @cached_property
    def models(self) -> dict[Line, list[Model]]:
        """The models of every line of the table, in its order: one for each seed. Raises UserError where
        there is none."""
        found: dict[Line, dict[int | None, Model]] = {line: {} for line in self.report.lines()}
        for setting, cell, row, role in models(self.report.rows):
            found[setting, cell].setdefault(row.seed, Model(row, role, self.root))
        if not found:
            raise UserError("every run of this name has failed: see its table, and run again")
        return {line: list(by_seed.values()) for line, by_seed in found.items()}
