"""Results: one JSON file per run."""

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from data.errors import UserError
from runner import sealed
from runner.joining import inner_joined, joined, lost, of_the_same_models
from runner.roles import ROLE, ROLES, UNLEARNED, Role
from runner.say import say
from runner.sealed import DamagedResult
from runner.shape import check_shape
from runner.store import fingerprint, lock_of
from runner.wording import suggestion

if TYPE_CHECKING:  # a report needs no torch
    from metrics.metric import Matrix


class Line(NamedTuple):
    """A line of a table. Results that differ only in their seeds belong to the same lines."""

    setting: str
    """The fingerprint of what methods are compared on: the original and the request."""

    cell: str
    """The fingerprint of the model without its seed, or the name of a shared role."""

    @property
    def shared_role(self) -> Role | None:
        """The role that the runs of the setting share, or None for a run's own model."""
        return ROLE.get(self.cell)


@dataclass
class Result:
    """The outcome of one run.

    `scores`, `costs`, `weights` (checksums) and `provenance` are keyed by the name of a role.
    `names` are the chosen options by group, `titles` the words for them, `setting` and `cells` (by role)
    identify lines (see `Line`), and `status` is "done" or "diverged". A diverged run has no scores.

    `references` holds, by seed, the weights, scores and costs of the other retrained models; a score
    that compares is with the retrained model of this run. `cell_scores` belong to all seeds of the cell.
    `about` says what the scores mean, `undefined` why a metric has none, and `not_finite` which scores
    of a role came out as no finite number. `drawn` is true if every seed has a request of its own.
    `reference_from` is where the reference starts, "weights", "checkpoint" or "scratch"; None if none is
    retrained. `reference_may_know` is true if that checkpoint was trained on images of the run's data
    set. `also` holds the overrides of further commands, if `overrides` alone do not make all the scores.
    `test_rows` counts the rows of the test set; a diverged run has predicted none. `matrices` is the
    fingerprint of the matrices that belong to the result, empty if none do; None in earlier versions.
    """

    name: str
    key: str
    seed: int | None
    names: Mapping[str, str]
    setting: str
    cells: Mapping[str, str]
    parameters: Mapping[str, Any]
    overrides: list[str]
    artefacts: list[tuple[str, str]]
    weights: Mapping[str, str]
    provenance: Mapping[str, Mapping[str, Any]]
    status: str
    error: str | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cell_scores: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)
    not_finite: Mapping[str, Sequence[str]] = field(default_factory=dict)
    drawn: bool = False
    reference_from: str | None = None
    reference_may_know: bool = False
    also: list[list[str]] = field(default_factory=list)
    titles: Mapping[str, str] = field(default_factory=dict)
    test_rows: int | None = None
    matrices: str | None = None

    def line(self, role: Role) -> Line:
        """Return the line of the table that the model of a role belongs to."""
        return Line(self.setting, role.name if role.shared else self.cells[role.name])

    @property
    def roles(self) -> list[Role]:
        """The roles of the models that were scored."""
        return [ROLE[name] for name in self.scores]

    @property
    def commands(self) -> list[list[str]]:
        """The overrides of each command that all the scores together take."""
        return [self.overrides, *self.also]

    @property
    def variant(self) -> str:
        """The name of the chosen variant, or of the method if no variant was chosen."""
        return self.names.get("variant", self.names["method"])

    @property
    def repeats(self) -> Role | None:
        """The shared role whose model the run's method made again, or None.

        `method=original` repeats the original, and `method=retrain` the reference.
        """
        own = self.weights.get(UNLEARNED.name)
        for role in ROLES:
            same = role.name in self.weights and self.weights[role.name] == own
            if role.shared and same and role.label == self.names["method"]:
                return role
        return None


@dataclass(frozen=True)
class Results:
    """The folder of all results: `root/<name>/<key>.json`, and matrices in `root/<name>/matrices`.

    Both carry a digest. A damaged one is told and left out; the command that made it makes it again.
    The file of matrices bears their fingerprint, which the result names, so that a kill between the two
    writes leaves the earlier result with its own matrices.
    """

    root: Path

    def require_writable(self) -> None:
        """Create the folder. Raise UserError if results cannot be written to it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UserError(
                f"cannot write to {self.root} ({error.strerror}): choose a folder with paths.root=…"
            ) from error

    def write(self, result: Result, matrices: "Mapping[str, Mapping[str, Matrix]]") -> None:
        """Write a result atomically, in place of an earlier one of the same key.

        `matrices` (by role and name) go to a separate file, so that results stay quick to read; `result`
        takes their fingerprint. The earlier result stays if it is done and the new one diverged. If both
        are of the same models, the earlier scores that the new one lacks are kept: it may have other
        metrics, no reference, or no training rows. A result of other models that lacks scores of the
        earlier one is told, and not written. Commands that end together write in turn.
        """
        folder = self._row(result).parent
        folder.mkdir(parents=True, exist_ok=True)
        with lock_of(folder / "rows"):
            self._write(result, matrices)

    def _write(self, result: Result, matrices: "Mapping[str, Mapping[str, Matrix]]") -> None:
        earlier, whole = self.find(result.name, result.key), result
        if earlier is not None and earlier.status == "done":
            if result.status != "done":
                return
            if of_the_same_models(earlier, result):
                whole = joined(earlier, result)
                matrices = inner_joined(self.sound_matrices(earlier), matrices)
            elif missing := lost(earlier, result):
                say(
                    f"{self._row(result)} keeps its earlier scores: this run has other weights and "
                    f"lacks {len(missing)} of them, such as {min(missing)}: run with the metrics and "
                    "the evaluation of the earlier command, or delete the file"
                )
                return
            elif earlier.setting != result.setting:
                say(
                    f"{self._row(result)} held this model beside other retrained ones, whose place "
                    "those of this run take: name=… keeps both"
                )
        result.matrices = whole.matrices = fingerprint(matrices) if any(matrices.values()) else ""
        own = self._matrices(result)
        if result.matrices:
            sealed.write(own, matrices, indent=None)
        sealed.write(self._row(result), asdict(whole), indent=1)
        every = {own.with_name(f"{result.key}.json"), *own.parent.glob(f"{result.key}-*.json")}
        for file in every - {own}:  # of earlier results and killed processes
            file.unlink(missing_ok=True)

    def named(self, name: str) -> list[Result]:
        """Return the results of a name, sorted by seed. Damaged ones are told, and left out.

        Raise UserError if there are none.
        """
        files = sorted((self.root / name).glob("*.json"))
        if not files:
            there = sorted(path.name for path in self.root.glob("*/") if self.has(path.name))
            cure = f"choose from {', '.join(there)}" if there else "it is empty: run something first"
            near = suggestion(name, there)
            raise UserError(
                f"no results are named {name} in {self.root}{near}: {cure}, or set another paths.root=…"
            )
        found = [result for path in files if (result := _sound(path)) is not None]
        if not found:
            raise UserError(f"all {len(files)} results that are named {name} are damaged, as told above")
        return sorted(found, key=lambda result: (result.seed or 0, result.key))

    def has(self, name: str) -> bool:
        """Return whether a name has results, which may be damaged."""
        return any((self.root / name).glob("*.json"))

    def made_by(self, commands: Collection[tuple[str, ...]]) -> list[Result]:
        """Return the results, of any name, that one of these commands made, each given by its overrides,
        but those whose folder was renamed since. Of the others, little more than that is read."""
        files = [path for path in sorted(self.root.glob("*/*.json")) if _command(path) in commands]
        return [result for path in files if (result := _sound(path)) is not None]

    def find(self, name: str, key: str) -> Result | None:
        """Return the result of a name and a key, or None if there is none. A damaged one is told, and is
        as good as none."""
        path = self.root / name / f"{key}.json"
        return _sound(path) if path.exists() else None

    def matrices(self, result: Result) -> "dict[str, dict[str, Matrix]]":
        """Return the matrices of a result by role and name; empty if it has none.

        Raise DamagedResult if they differ from what was written.
        """
        path = self._matrices(result)
        try:
            return sealed.read(path)
        except FileNotFoundError as error:
            if not result.matrices:
                return {}
            raise sealed.damaged(path, self._row(result), "it is missing") from error
        except ValueError as error:
            raise sealed.damaged(path, self._row(result), error) from error

    def sound_matrices(self, result: Result) -> "dict[str, dict[str, Matrix]]":
        """Return the matrices of a result as `matrices` does; damaged ones are told, and left out."""
        try:
            return self.matrices(result)
        except DamagedResult as error:
            leave_out(str(error))
            return {}

    def _row(self, result: Result) -> Path:
        return self.root / result.name / f"{result.key}.json"

    def _matrices(self, result: Result) -> Path:
        own = "" if result.matrices is None else f"-{result.matrices}"
        return self.root / result.name / "matrices" / f"{result.key}{own}.json"


def models(results: list[Result]) -> Iterator[tuple[Line, Result, Role]]:
    """Yield every scored model: its line, its result and its role.

    A model that several runs share comes once for each of them. A run's own model is left out if it
    repeats a shared one.
    """
    for result in results:
        for role in result.roles:
            if not (role is UNLEARNED and result.repeats):
                yield result.line(role), result, role


def read(path: Path) -> Result:
    """Return the result in a file. Raise DamagedResult if it holds none, or another than was written."""
    try:
        result = Result(**sealed.read(path))
        if "line" in result.names:  # the former name of a variant
            names = dict(result.names)
            names["variant"] = names.pop("line")
            result.names = names
        check_shape(result)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise sealed.damaged(path, path, error) from error
    return result


def _command(path: Path) -> tuple[str, ...] | None:
    """Return the overrides of the command that makes the result in a file; None if they cannot be read,
    or if it makes another file since the folder was renamed."""
    try:
        return tuple(sealed.overrides_in(path)) if sealed.name_in(path) == path.parent.name else None
    except (OSError, ValueError, TypeError):
        return None


def _sound(path: Path) -> Result | None:
    """Return the result in a file, under the name of its folder, which may have been renamed since; or
    tell that it is damaged and return None."""
    try:
        result = read(path)
    except DamagedResult as error:
        leave_out(str(error))
        return None
    result.name = path.parent.name
    return result


@cache
def leave_out(damage: str) -> None:
    """Say that a damaged file is left out; once, however often it is read."""
    say(f"left out: {damage}")
