"""Pictures of a report: figures as SVG, and confusion matrices as tables."""

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from data.errors import UserError
from runner.figure.confusion import LEGIBLE, class_names, forgotten, percentages
from runner.figure.drawing import Drawing, svg
from runner.figure.runs import Model, Runs
from runner.last_lines import of_results
from runner.results import Line

# The most methods that a picture with a curve for each shows, those nearest to retraining: four rows of
# panels.
FEW = 28


class Picture(NamedTuple):
    """A picture: an address that holds it, its width in pixels, a remark, which may stand alone, and the
    command that draws what it leaves out."""

    source: str
    width: int
    remark: str
    command: str


class Matrix(NamedTuple):
    """A confusion matrix: the names of the classes, the percentages of each true class, and the numbers
    of the forgotten classes."""

    title: str
    classes: Sequence[str]
    percent: list[list[int]]
    forgotten: list[int]


@dataclass(frozen=True)
class Present(Runs):
    """Of `every` run, those of the first `most` methods, None for all, whose models have what `drawing`
    shows. `kind` is the name of that figure."""

    kind: str
    drawing: Drawing
    every: Runs
    most: int | None

    @cached_property
    def models(self) -> dict[Line, list[Model]]:
        """The models that are drawn, by line, in the order of the table."""
        return {
            line: kept
            for line, models in self._first.items()
            if (kept := [each for each in models if self._has(each)])
        }

    @property
    def remark(self) -> str:
        """Sentences on the methods that are not drawn; empty if all are."""
        said = []
        if lacking := [self.report.titles[line] for line in self._first if line not in self.models]:
            said.append(f"Not drawn, since nothing of it is stored or logged: {', '.join(lacking)}.")
        if self.command:
            said.append(f"These are the first {self.most} of {len(self._own)} methods; this draws all:")
        return " ".join(said)

    @property
    def command(self) -> str:
        """The command that draws all methods, if there are more; else empty."""
        if self.most is None or len(self._own) <= self.most:
            return ""
        named = of_results(self.report.results[0].name, str(self.root))
        return shlex.join(["python", "-m", "runner.figure", *named, f"figure=[{self.kind}]"])

    @cached_property
    def _own(self) -> list[Line]:
        return [line for line in self.every.models if line.shared_role is None]

    @cached_property
    def _first(self) -> dict[Line, list[Model]]:
        """The models of the shared lines and of the first methods."""
        others = set() if self.most is None else set(self._own[self.most :])
        return {line: each for line, each in self.every.models.items() if line not in others}

    def _has(self, model: Model) -> bool:
        try:
            return self.drawing.has(model)
        except UserError:
            return False


def picture(runs: Present) -> Picture:
    """Return the figure of the runs; only a remark if they have nothing to draw."""
    if not runs.models:
        return Picture("", 0, "The store holds nothing of what this figure shows.", "")
    try:
        figure = runs.drawing.draw(runs)
    except UserError as error:
        return Picture("", 0, f"Not drawn: {error}.", "")
    width = round(96 * figure.get_figwidth())
    return Picture(address(svg(figure), "svg+xml"), width, runs.remark, runs.command)


def address(image: bytes, kind: str) -> str:
    """Return an address that holds an image."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def matrices(runs: Present, name: str) -> list[Matrix]:
    """Return the confusion matrix of every line, summed over seeds; none if it has too many classes to
    be read."""
    found = []
    for line, models in runs.models.items():
        percent = percentages([model.matrix(name) for model in models])
        if len(percent) <= LEGIBLE:
            rounded = percent.round().astype(int).tolist()
            names = class_names(runs, line, len(percent))
            found.append(Matrix(runs.report.titles[line], names, rounded, forgotten(models)))
    return found
