"""Requests to forget training rows, and the test rows of the same kind.

A scenario is a frozen dataclass. `check` refuses an impossible request before any file is read; `select`
returns the rows of a possible one. Scenarios that corrupt the training set lie in `data.corruption`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from data.bounds import COUNT, INSIDE_SHARE, SEED
from data.classes import ClassNumber, FineClassNumber, check_classes
from data.component import Component
from data.errors import UserError
from data.row_file import Rows, content, read_rows
from data.sources import Source
from data.split import Dataset, Split
from data.streams import Streams


@dataclass(frozen=True, eq=False)
class Request:
    """Rows to forget.

    `rows` (F,) int64 holds the training rows, ascending. `test` (T,) int64 holds the test rows of the
    same kind; it is empty if the request names single rows. `target` is the new class of the forgotten
    rows in a request to relabel, else None.
    """

    rows: Tensor
    test: Tensor
    target: int | None = None


class Attack(NamedTuple):
    """Test rows of an attack by corrupted training rows.

    `shown` are the test rows as the attack shows them, labelled with the classes that it aims at.
    `clean` (N,) bool is true for the rows of the test split that must still be classified correctly.
    """

    shown: Split
    clean: Tensor


class Noise(NamedTuple):
    """Noise that a corruption adds to images: `values` (F, C, H, W) float32 in units of its standard
    deviation, and the training `rows` (F,) int64, ascending."""

    rows: Tensor
    values: Tensor


class Scenario(Component):
    """A kind of request. Its fields make it a single request.

    It may corrupt the training set before any training. Then `corruption`, `corrupt`, and `attack` or
    `noise` are defined.
    """

    @property
    def drawn(self) -> bool:
        """True if every seed of a run draws rows of its own."""
        return False

    def check(self, source: Source) -> None:
        """Raise UserError if the data set cannot serve this request."""

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        """Return the rows. Raise UserError if they are none, all, or not rows of the data set."""
        raise NotImplementedError

    def corruption(self) -> dict[str, Any] | None:
        """Return what identifies the corrupted data, or None if the scenario corrupts nothing."""
        return None

    def corrupt(self, dataset: Dataset) -> Dataset:
        """Return the data set that the original is trained on. The test split stays as it is."""
        return dataset

    def attack(self, test: Split) -> Attack | None:
        """Return the attack on the test split, or None if the scenario aims at none."""
        return None

    def noise(self, train: Split) -> Noise | None:
        """Return the noise that was added to rows of the training split, or None if none was."""
        return None


@dataclass(frozen=True)
class WholeClass(Scenario):
    """Forget every row of one or several classes."""

    kind: ClassVar[str] = "data.requests.WholeClass"

    classes: list[ClassNumber]

    def identity(self) -> dict[str, Any]:
        return {"classes": sorted(set(self.classes))}

    def check(self, source: Source) -> None:
        check_classes("scenario.classes", self.classes, source.classes)
        if len(set(self.classes)) == source.classes:
            raise UserError("scenario.classes names every class: nothing would be retained")

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        wanted = torch.tensor(self.classes)
        return request_of(
            dataset,
            torch.isin(dataset.train.labels, wanted),
            torch.isin(dataset.test.labels, wanted),
        )


@dataclass(frozen=True)
class PartOfClass(Scenario):
    """Forget fine classes within their superclasses: rocket goes, the rest of vehicles_2 stays."""

    kind: ClassVar[str] = "data.requests.PartOfClass"

    classes: list[FineClassNumber]

    def identity(self) -> dict[str, Any]:
        return {"classes": sorted(set(self.classes))}

    def check(self, source: Source) -> None:
        names = source.fine_class_names("scenario.classes")
        check_classes("scenario.classes", self.classes, len(names))

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        train, test = dataset.train.fine, dataset.test.fine
        assert train is not None and test is not None  # check() refuses the others
        wanted = torch.tensor(self.classes)
        return request_of(dataset, torch.isin(train, wanted), torch.isin(test, wanted))


@dataclass(frozen=True)
class Random(Scenario):
    """Forget rows drawn uniformly without replacement.

    `count` is their number; if it is null, `fraction` is their share of the training set. `seed` fixes
    the draw for all seeds of the run; null draws other rows for each.
    """

    kind: ClassVar[str] = "data.requests.Random"

    count: Annotated[int, COUNT] | None
    fraction: Annotated[float, INSIDE_SHARE]
    seed: Annotated[int, SEED] | None

    def idle(self) -> Mapping[str, str]:
        return {} if self.count is None else {"fraction": f"count={self.count} is set"}

    @property
    def drawn(self) -> bool:
        return self.seed is None

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        n = len(dataset.train)
        count = round(self.fraction * n) if self.count is None else self.count
        if count >= n:
            raise UserError(f"scenario.count is {count}, but the training set has {n} rows")
        if self.seed is not None:
            streams = Streams(self.seed, streams.scope)
        chosen = torch.zeros(n, dtype=torch.bool)
        chosen[torch.randperm(n, generator=streams("request"))[:count]] = True
        return request_of(dataset, chosen)


@dataclass(frozen=True)
class GivenRows(Scenario):
    """Forget the training rows that a file lists: .npy, or .csv or .txt with one row a line."""

    kind: ClassVar[str] = "data.requests.GivenRows"

    file: str

    def check(self, source: Source) -> None:
        _ = self.rows

    def identity(self) -> dict[str, Any]:
        """Return the content of the file, whatever its path."""
        return {"rows_sha256": content(self.rows)}

    @cached_property
    def rows(self) -> Rows:
        """The listed rows, read once: a run keeps its request even if the file changes."""
        return read_rows(self.file, "scenario.file")

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        rows = torch.from_numpy(self.rows)
        known = torch.isin(rows, dataset.train.rows)
        if not known.all():
            raise UserError(
                f"scenario.file={self.file} lists row {int(rows[~known][0])}, which is not among "
                f"the {len(dataset.train)} training rows (0 to {int(dataset.train.rows.max())})"
            )
        return request_of(dataset, torch.isin(dataset.train.rows, rows))


@dataclass(frozen=True)
class Relabel(Scenario):
    """Turn class `source` into class `target` (paper 000: 6 becomes 3).

    The rows stay under the new label. The retained data are the whole training set with the new labels,
    and the reference is trained on them.
    """

    kind: ClassVar[str] = "data.requests.Relabel"

    source: ClassNumber
    target: ClassNumber

    def check(self, source: Source) -> None:
        check_classes("scenario.source", [self.source], source.classes)
        check_classes("scenario.target", [self.target], source.classes)
        if self.source == self.target:
            raise UserError("scenario.source and scenario.target are the same class")

    def select(self, dataset: Dataset, streams: Streams) -> Request:
        return request_of(
            dataset,
            dataset.train.labels == self.source,
            dataset.test.labels == self.source,
            self.target,
        )


def request_of(
    dataset: Dataset, train: Tensor, test: Tensor | None = None, target: int | None = None
) -> Request:
    """Return the request for the rows that are true in the masks of the training and test split."""
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
