"""Rows: the scores of one model of one run, a line of `<name>_rows.csv`, from which tables follow."""

import csv
import io
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.errors import UserError
from runner.results import Result

# The first columns of a file; a column for each score follows.
ABOUT = ("variant", "dataset", "model", "role", "seed", "key", "commit", "device", "overrides")

# Options that choose a cell of a preset, or say where and how it is made and shown, and not what it
# computes; and the beginnings of such options.
FREE = {
    "experiment", "scale", "variant", "method", "seed", "repair", "reads", "name", "threads", "device",
    "until", "metric", "data.root", "data.download", "model.weights", "model.sha256",
}  # fmt: skip
FREE_GROUPS = ("scale/", "paths.", "evaluation", "table.", "figure", "tracking", "hydra")

# Options that name places of one machine, which a file of rows leaves out.
PLACES = ("paths.", "data.root=")


@dataclass(frozen=True)
class Row:
    """The scores by name of the model that has `role` in one run, and what made it.

    `overrides` has a line for each command: all of them together make the scores.
    """

    variant: str
    dataset: str
    model: str
    role: str
    seed: str
    key: str
    commit: str
    device: str
    overrides: str
    scores: Mapping[str, float]

    @property
    def own_options(self) -> list[str]:
        """The overrides that make another run of the preset than its file does."""
        options = dict.fromkeys(text.lstrip("+~") for text in shlex.split(self.overrides))
        return [text for text in options if not _is_free(text.split("=")[0])]


def _is_free(option: str) -> bool:
    return option in FREE or option.startswith(FREE_GROUPS)


def of_results(results: Iterable[Result]) -> Iterator[Row]:
    """Yield the rows of finished runs."""
    for result in results:
        for role in result.roles:
            yield Row(
                result.variant,
                result.names["dataset"],
                result.names["model"],
                role.name,
                str(result.seed),
                result.key,
                str(result.provenance["row"]["commit"])[:9],
                str(result.provenance["row"]["device"]),
                _without_places(result.commands),
                {**result.scores[role.name], **result.costs.get(role.name, {})},
            )


def _without_places(commands: Iterable[list[str]]) -> str:
    """Return the overrides of each command as a line."""
    lines = (shlex.join(text for text in each if not text.startswith(PLACES)) for each in commands)
    return "\n".join(dict.fromkeys(lines))


def text(rows: Iterable[Row], scores: Collection[str]) -> str:
    """Return the file of the rows, with those of these scores that some row has."""
    # seeds by size: 2 before 10
    listed = sorted(rows, key=lambda row: (row.variant, len(row.seed), row.seed, row.role))
    shown = [name for name in dict.fromkeys(scores) if any(name in row.scores for row in listed)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*ABOUT, *shown])
    for row in listed:
        writer.writerow(
            [*(getattr(row, name) for name in ABOUT), *(row.scores.get(name, "") for name in shown)]
        )
    return file.getvalue()


def read(path: Path) -> list[Row]:
    """Return the rows of a file. Raise UserError if it is not one of rows."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    try:
        return [_row(line) for line in lines]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path} is no file of rows ({error}): git checkout it, or write it anew"
        ) from error


def _row(line: Mapping[str, str]) -> Row:
    scores = {name: float(value) for name, value in line.items() if name not in ABOUT and value}
    return Row(**{name: line[name] for name in ABOUT}, scores=scores)
