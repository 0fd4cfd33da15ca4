"""Results: one JSON file per run, and the data frame of many runs."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from data.errors import UserError
from runner.roles import REFERENCE, ROLE, ROLES, UNLEARNED, Role

if TYPE_CHECKING:  # a report needs no torch, and pandas only when it renders
    import pandas as pd

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
    `about` says what the scores mean, and `undefined` why a metric has none. `drawn` is true if every
    seed has a request of its own.
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
    drawn: bool = False
    titles: Mapping[str, str] = field(default_factory=dict)

    def line(self, role: Role) -> Line:
        """Return the line of the table that the model of a role belongs to."""
        return Line(self.setting, role.name if role.shared else self.cells[role.name])

    @property
    def roles(self) -> list[Role]:
        """The roles of the models that were scored."""
        return [ROLE[name] for name in self.scores]

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
    """The folder of all results: `root/<name>/<key>.json`, and matrices in `root/<name>/matrices`."""

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

        `matrices` (by role and name) go to a separate file, so that results stay quick to read. The
        earlier result stays if it is done and the new one diverged. If both are of the same models, the
        earlier scores that the new one lacks are kept: it may have other metrics, no
        reference, or no training rows.
        """
        path = self.root / result.name / f"{result.key}.json"
        if path.exists():
            earlier = _read(path)
            if earlier.status == "done" and result.status != "done":
                return
            if earlier.status == "done" and _of_the_same_models(earlier, result):
                result = _joined(earlier, result)
                matrices = _inner_joined(self.matrices(earlier), matrices)
        if any(matrices.values()):
            _write(self._matrices(result), matrices, indent=None)
        _write(path, asdict(result), indent=1)

    def named(self, name: str) -> list[Result]:
        """Return the results of a name, sorted by seed. Raise UserError if there are none."""
        found = [_read(path) for path in (self.root / name).glob("*.json")]
        if not found:
            there = sorted(path.name for path in self.root.glob("*/"))
            raise UserError(f"no results are named {name} in {self.root}; there are: {there}")
        return sorted(found, key=lambda result: (result.seed or 0, result.key))

    def find(self, name: str, key: str) -> Result | None:
        """Return the result of a name and a key, or None if there is none."""
        path = self.root / name / f"{key}.json"
        return _read(path) if path.exists() else None

    def matrices(self, result: Result) -> "dict[str, dict[str, Matrix]]":
        """Return the matrices of a result by role and name; empty if it has none."""
        path = self._matrices(result)
        if not path.exists():
            return {}
        with _refusing_damage(path):
            found: dict[str, dict[str, Matrix]] = json.loads(path.read_text())
        return found

    def _matrices(self, result: Result) -> Path:
        return self.root / result.name / "matrices" / f"{result.key}.json"


def models(results: list[Result]) -> Iterator[tuple[Line, Result, Role]]:
    """Yield every scored model: its line, its result and its role.

    A model that several runs share comes once for each of them. A run's own model is left out if it
    repeats a shared one.
    """
    for result in results:
        for role in result.roles:
            if not (role is UNLEARNED and result.repeats):
                yield result.line(role), result, role


def tidy(results: list[Result]) -> "pd.DataFrame":
    """Return a frame with one entry per model and number: `setting`, `cell`, `method`, `seed`,
    `metric`, `value` and `gap`.

    `gap` is the value minus that of the same run's reference, NaN if the reference has no such score.
    Originals and references that several runs share appear once per setting and seed. The values of a
    score of a whole cell appear once per cell, by their places instead of seeds.
    """
    import pandas as pd

    entries = []
    for line, result, role in models(results):
        reference = result.scores.get(REFERENCE.name, {})
        method = role.label if role.shared else result.names["method"]
        for name, value in (*result.scores[role.name].items(), *result.costs[role.name].items()):
            gap = value - reference[name] if name in reference else None
            entries.append((*line, method, result.seed, name, value, gap))
    for line, method, name, found in cell_values(results):
        entries += [(*line, method, place, name, value, None) for place, value in enumerate(found)]
    columns = ["setting", "cell", "method", "seed", "metric", "value", "gap"]
    frame = pd.DataFrame(entries, columns=columns)
    return frame.drop_duplicates(["setting", "cell", "seed", "metric"], ignore_index=True)


def cell_values(results: list[Result]) -> Iterator[tuple[Line, str, str, list[float]]]:
    """Yield line, method, name and values of every score of a cell, once per result."""
    for result in results:
        line = result.line(result.repeats or UNLEARNED)
        for name, value in result.cell_scores.items():
            values = value if isinstance(value, list) else [value]
            yield line, result.names["method"], name, values


def _of_the_same_models(earlier: Result, later: Result) -> bool:
    """Return whether the weights of two results agree in every role that both have."""
    return all(
        earlier.weights[role] == later.weights[role] for role in earlier.weights if role in later.weights
    )


def _joined(earlier: Result, later: Result) -> Result:
    """Return the later result of two of the same models, with what it lacks from the earlier one."""
    return replace(
        later,
        artefacts=sorted({(stage, key) for stage, key in (*earlier.artefacts, *later.artefacts)}),
        weights={**earlier.weights, **later.weights},
        provenance={**earlier.provenance, **later.provenance},
        scores=_inner_joined(earlier.scores, later.scores),
        costs=_inner_joined(earlier.costs, later.costs),
        references={
            seed: _inner_joined(earlier.references.get(seed, {}), later.references.get(seed, {}))
            for seed in {**earlier.references, **later.references}
        },
        cell_scores={**earlier.cell_scores, **later.cell_scores},
        about={**earlier.about, **later.about},
        undefined={**earlier.undefined, **later.undefined},
    )


def _inner_joined(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Join mappings, and the mappings in them; where both have a value, the later one counts."""
    joined = {**earlier, **later}
    for name in earlier.keys() & later.keys():
        if isinstance(later[name], Mapping):
            joined[name] = {**earlier[name], **later[name]}
    return joined


def _read(path: Path) -> Result:
    """Read a result. Raise UserError if the file holds none."""
    with _refusing_damage(path):
        result = Result(**json.loads(path.read_text()))
        if "line" in result.names:  # the former name of a variant
            names = dict(result.names)
            names["variant"] = names.pop("line")
            result.names = names
    return result


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Turn errors of parsing a file into a UserError that names the file."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again") from error


def _write(path: Path, value: Any, indent: int | None) -> None:
    """Write JSON to a scratch file and rename it, so that the file is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{uuid4().hex}.tmp")
    try:
        scratch.write_text(json.dumps(value, indent=indent))
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
