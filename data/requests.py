"""Requests to forget: which training rows must go, and which test rows show the same thing.

A scenario is a frozen dataclass with two verbs: `check` refuses what cannot be, from what is known
before any file is read; `select` names the rows.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.component import Component
from data.errors import UserError
from data.row_file import Rows, content, read_rows
from data.sources import Source
from data.split import Dataset
from data.streams import Streams


@dataclass(frozen=True, eq=False)
class Request:
    """Rows to forget: `rows` (F,) int64 training rows, ascending; `test` (T,) int64 test rows of the
    same kind, none where the request names single rows; `target`, the class that the forgotten rows
    are to become, in a request to relabel."""

    rows: Tensor
    test: Tensor
    target: int | None = None


class Scenario(Component):
    """A kind of request; its fields say which one."""

    def check(self, source: Source) -> None:
        """Raises UserError where the data set cannot serve this request."""

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        """The rows. Raises UserError where they are none, all, or not rows of the data set."""
        raise NotImplementedError


@dataclass(frozen=True)
class WholeClass(Scenario):
    """Forget every row of one or several classes."""

    kind: ClassVar[str] = "data.requests.WholeClass"

    classes: list[int]

    def identity(self) -> dict[str, Any]:
        return {"classes": sorted(set(self.classes))}

    def check(self, source: Source) -> None:
        check_classes("scenario.classes", self.classes, source.classes)
        if len(set(self.classes)) == source.classes:
            raise UserError("scenario.classes names every class: nothing would be retained")

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        wanted = torch.tensor(self.classes)
        return _request(
            dataset,
            torch.isin(dataset.train.labels, wanted),
            torch.isin(dataset.test.labels, wanted),
        )


@dataclass(frozen=True)
class PartOfClass(Scenario):
    """Forget fine classes inside their superclass: 'rocket' goes, 'vehicles 2' stays."""

    kind: ClassVar[str] = "data.requests.PartOfClass"

    classes: list[int]

    def identity(self) -> dict[str, Any]:
        return {"classes": sorted(set(self.classes))}

    def check(self, source: Source) -> None:
        if source.fine_classes is None:
            raise UserError(
                "scenario=part_of_class needs a data set with fine labels: use dataset=cifar20"
            )
        check_classes("scenario.classes", self.classes, source.fine_classes)

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        train, test = dataset.train.fine, dataset.test.fine
        assert train is not None and test is not None  # check() has refused the others
        wanted = torch.tensor(self.classes)
        return _request(dataset, torch.isin(train, wanted), torch.isin(test, wanted))


@dataclass(frozen=True)
class Random(Scenario):
    """Forget rows drawn uniformly: `count` of them, or a `fraction` of the training set where `count`
    is null. `seed` pins the draw while the run's seed varies; null draws anew for every seed."""

    kind: ClassVar[str] = "data.requests.Random"

    count: int | None
    fraction: float
    seed: int | None

    def check(self, source: Source) -> None:
        if self.count is None and not 0 < self.fraction < 1:
            raise UserError(
                f"scenario.fraction={self.fraction}: it must lie between 0 and 1, both excluded"
            )
        if self.count is not None and self.count < 1:
            raise UserError(f"scenario.count={self.count}: ask to forget at least one row")

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        n = len(dataset.train)
        count = round(self.fraction * n) if self.count is None else self.count
        if count >= n:
            raise UserError(f"scenario.count is {count}, but the training set has {n} rows")
        if self.seed is not None:
            streams = Streams(self.seed, streams.scope)
        chosen = torch.zeros(n, dtype=torch.bool)
        chosen[torch.randperm(n, generator=streams("request"))[:count]] = True
        return _request(dataset, chosen)


@dataclass(frozen=True)
class GivenRows(Scenario):
    """Forget the training rows that a file lists: .npy, or .csv or .txt with one index a line."""

    kind: ClassVar[str] = "data.requests.GivenRows"

    file: str

    def check(self, source: Source) -> None:
        _ = self.rows

    def identity(self) -> dict[str, Any]:
        """What the request is made of: the rows themselves, wherever the file lies."""
        return {"rows_sha256": content(self.rows)}

    @cached_property
    def rows(self) -> Rows:
        """The listed rows, read once: a run keeps its request though the file changes."""
        return read_rows(self.file, "scenario.file")

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        rows = torch.from_numpy(self.rows)
        known = torch.isin(rows, dataset.train.rows)
        if not known.all():
            raise UserError(
                f"scenario.file={self.file} lists row {int(rows[~known][0])}, which is not among "
                f"the {len(dataset.train)} training rows (0 to {int(dataset.train.rows.max())})"
            )
        return _request(dataset, torch.isin(dataset.train.rows, rows))


@dataclass(frozen=True)
class Relabel(Scenario):
    """Class `source` becomes class `target` (paper 000: 6 becomes 3).

    The rows stay, under the new label: what is retained is the whole training set relabelled, and
    the reference is trained on that.
    """

    kind: ClassVar[str] = "data.requests.Relabel"

    source: int
    target: int

    def check(self, source: Source) -> None:
        check_classes("scenario.source", [self.source], source.classes)
        check_classes("scenario.target", [self.target], source.classes)
        if self.source == self.target:
            raise UserError("scenario.source and scenario.target are the same class")

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        return _request(
            dataset,
            dataset.train.labels == self.source,
            dataset.test.labels == self.source,
            self.target,
        )


def _request(
    dataset: Dataset, train: Tensor, test: Tensor | None = None, target: int | None = None
) -> Request:
    forgotten = int(train.sum())
    if not forgotten:
        raise UserError("the request selects no training row: nothing would be forgotten")
    if forgotten == len(train):
        raise UserError("the request selects every training row: nothing would be retained")
    none = torch.zeros(len(dataset.test), dtype=torch.bool)
    return Request(
        rows=dataset.train.rows[train],
        test=dataset.test.rows[none if test is None else test],
        target=target,
    )


def check_classes(option: str, asked: list[int], classes: int) -> None:
    if not asked:
        raise UserError(f"{option} is empty, so that nothing would be forgotten: name a class")
    for label in asked:
        if not 0 <= label < classes:
            raise UserError(
                f"{option} asks for class {label}, but the data set has classes 0 to {classes - 1}"
            )
