"""The runs of one name: their table, and their models with stored curves, logits and matrices."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import UserError
from runner.last_lines import of_results
from runner.naming import command_of
from runner.report import Report
from runner.results import Line, Result, Results
from runner.roles import Role

if TYPE_CHECKING:
    from torch import Tensor, nn

    from metrics.metric import Matrix
    from runner.stages import Workspace
    from runner.store import Artefact, Store


@dataclass(frozen=True)
class Model:
    """The model of a line for one seed: the one that has `role` in a result. `root` is paths.root."""

    result: Result
    role: Role
    root: Path

    @cached_property
    def logged(self) -> list[dict[str, float]]:
        """The points logged while the model was trained. Raises UserError if they are not stored."""
        from runner.stages import curves_of

        return curves_of(self._made("curves"))

    @cached_property
    def logits(self) -> "Tensor":
        """The (N, K) logits of the test set. Raises UserError if they are not stored."""
        from runner.stages import logits_of

        return logits_of(self._predicted("test"))

    @cached_property
    def workspace(self) -> "Workspace":
        """The workspace of the run that made the model. Raises UserError if the run's options have
        another meaning by now."""
        from runner.compose import composed
        from runner.plan import Plan
        from runner.stages import Workspace

        plan = Plan.of(*composed(self.result.overrides))
        if plan.key != self.result.key:
            raise UserError(
                f"`{self._again}` makes another model by now than {self._text}: run it again with "
                "another name=…, and draw that name"
            )
        return Workspace(plan, _store(self.root))

    @property
    def network(self) -> "nn.Module":
        """The model on the device. Raises UserError if its weights are not stored."""
        from runner.score.live import method_of
        from runner.stages.models import load

        return load(self.workspace, self.artefact, method_of(self.workspace.plan, self.role))

    @property
    def artefact(self) -> "Artefact":
        """The artefact of the model. Raises UserError if its weights are not stored."""
        return self._made("weights")

    def is_stored_as(self, key: str) -> bool:
        """Return whether the store has the model under this key."""
        known = [(self.role.stage, key)]
        return any(_store(self.root).stored(known, self._is_of))

    @cached_property
    def forgotten(self) -> list[int]:
        """The classes of which the request retains no row; none if the request is not stored."""
        from runner.stages.request import stored_facts

        with suppress(UserError):
            return list(stored_facts(self._request)["gone"])
        return []

    @cached_property
    def forgotten_margins(self) -> "Tensor":
        """The log-odds of its label, ln p − ln(1 − p), of each forgotten training row (T,).

        Raises UserError if the predictions or the request are not stored.
        """
        import torch

        from metrics.predictions import margins
        from runner.stages.predict import stored_predictions
        from runner.stages.request import stored_request

        logits, labels, rows = stored_predictions(self._predicted("train"))
        gone = torch.isin(rows, stored_request(self._request).rows)
        return margins(logits[gone], labels[gone])

    def matrix(self, name: str) -> "Matrix":
        """Return the matrix that a metric made under this name. Raise UserError if there is none."""
        found = Results(self.root / "results").matrices(self.result).get(self.role.name, {})
        if name not in found:
            choice = "".join(f"set figure.confusion.matrix={each}, or " for each in sorted(found))
            named = shlex.join(of_results(self.result.name, str(self.root)))
            raise UserError(
                f"{self._text} has no matrix {name}: {choice}run `python -m runner.score {named} "
                "metric=[…]` with a metric that makes it"
            )
        return found[name]

    @property
    def _request(self) -> "Artefact":
        """The request of the run's own seed: those of a cell stand beside it."""
        return self._artefact(
            "request", lambda made: bool(made.identity["seed"] == self.result.seed), "request"
        )

    def _predicted(self, split: str) -> "Artefact":
        """Return the model's predictions of a split. Raise UserError if they are not stored."""

        def is_mine(made: "Artefact") -> bool:
            identity = made.identity
            return bool((identity["weights"], identity["split"]) == (self._weights, split))

        return self._artefact("predict", is_mine, "predictions")

    def _made(self, what: str) -> "Artefact":
        """Return the artefact of the model. Raise UserError, naming `what`, if it is not stored."""
        return self._artefact(self.role.stage, self._is_of, what)

    def _is_of(self, made: "Artefact") -> bool:
        from runner.stages import weights_of

        return weights_of(made) == self._weights

    def _artefact(self, stage: str, is_mine: "Callable[[Artefact], bool]", what: str) -> "Artefact":
        """Return the artefact of a stage that the run used and that `is_mine` accepts.

        Raise UserError, naming `what`, if none is stored, or none whole.
        """
        known = [each for each in self.result.artefacts if each[0] == stage]
        made = next(_store(self.root).stored(known, is_mine), None)
        if made is None:
            raise self._gone(what)
        return made

    @property
    def _weights(self) -> str:
        """The checksum of the model's weights."""
        return self.result.weights[self.role.name]

    @property
    def _text(self) -> str:
        return f"the {self.role.name} model of result {self.result.name}/{self.result.key}"

    @property
    def _again(self) -> str:
        """The command that made the result."""
        return command_of(self.result.overrides)

    def _gone(self, what: str) -> UserError:
        return UserError(
            f"the {what} of {self._text} are no longer in the store: run `{self._again}` again"
        )


@cache
def _store(root: Path) -> "Store":
    """Return the store of a root: one object, so that what is drawn counts as used to the end."""
    from runner.store import Store

    return Store(root / "store")


def _class_names(result: Result) -> Sequence[str]:
    """Return the names of the classes of a run's data set, or their numbers; none if the run's options
    have no meaning by now."""
    from runner.compose import composed
    from runner.plan import Plan

    try:
        return Plan.of(*composed(result.overrides)).source.class_names
    except UserError:
        return ()


@dataclass(frozen=True)
class Runs:
    """The table of a name's results. `root` is the folder of results and store, paths.root."""

    report: Report
    root: Path

    @cached_property
    def models(self) -> dict[Line, list[Model]]:
        """The models of every line, one for each seed, in the order of the table.

        Raises UserError if every run failed.
        """
        found = self.report.models()
        if not found:
            raise UserError(
                "every run of this name failed, so there is nothing to draw: see its table for the "
                "reasons, and run again"
            )
        return {line: [Model(*each, self.root) for each in own] for line, own in found.items()}

    @cached_property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """The names of the classes by the name of the data set, of the first run that has it."""
        first = {result.names["dataset"]: result for result in reversed(self.report.results)}
        return {name: _class_names(result) for name, result in first.items()}
