"""Records of a training: what is written while a model trains, so that it can be taken out later.

A recorder wraps the loop's steps and changes nothing: the weights are the same bits with and without it.
Several recorders can watch one training.
"""

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from data.classes import ClassNumber
from data.component import Component
from data.errors import UserError
from data.row_file import content, read_rows
from data.split import Split
from data.streams import Streams
from methods.recording.files import Writer
from methods.training.descent import Recipe, Step
from methods.weights.layers import refuse_batch_norm

# What a recording that gave up leaves in its folder.
LOST = "lost"

# What every record has: which rows it can serve, and what it takes to read it, written last.
ROWS, ABOUT = "rows.safetensors", "about.json"


class OnFull(Enum):
    """When the disk fills up: `stop` the training, or let it `go_on` to the end without the record."""

    stop = "stop"
    go_on = "go_on"


@dataclass(frozen=True)
class RecordedTraining:
    """A training that is about to begin: the model on its device, the rows, the recipe, the record's own
    random streams, and the folder that it is to be written to."""

    model: nn.Module
    split: Split
    recipe: Recipe
    streams: Streams
    folder: Path

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def steps(self) -> int:
        return self.recipe.epochs * math.ceil(len(self.split) / self.recipe.batch_size)


@dataclass(frozen=True)
class Recorder(Component):
    """Something that watches a training. `classes` are those whose rows are tracked, `rows` a file that
    lists them; null both for all. `on_full`: what a full disk means for the training."""

    classes: list[ClassNumber] | None
    rows: str | None
    on_full: OnFull

    def identity(self) -> dict[str, Any]:
        listed = None if self.rows is None else content(self._listed)
        found = super().identity() | {"rows": listed}
        del found["on_full"]  # a record is the same whatever would have been done without it
        return found

    @cached_property
    def _listed(self) -> Any:
        assert self.rows is not None
        return read_rows(self.rows, "recorder.rows")

    def check_parameters(self, option: str) -> None:
        """Raises UserError for parameters that make no sense; `option` is where they were set."""
        if self.classes == []:
            raise UserError(f"{option}.classes is empty: name the classes to track, or null for all")
        if self.classes is not None and self.rows is not None:
            raise UserError(f"{option}: track classes or rows, and set the other to null")
        if self.rows is not None:
            read_rows(self.rows, f"{option}.rows")

    def tracked(self, split: Split) -> Tensor:
        """(T,) the rows that can be asked for later, ascending."""
        if self.classes is not None:
            return split.rows[torch.isin(split.labels, torch.tensor(self.classes).to(split.labels))]
        if self.rows is not None:
            listed = torch.from_numpy(self._listed).to(split.rows)
            unknown = listed[~torch.isin(listed, split.rows)]
            if len(unknown):
                raise UserError(
                    f"a recorder's rows={self.rows} lists row {int(unknown[0])}: list only those of the "
                    f"{len(split)} training rows"
                )
            return listed
        return split.rows

    def index(self, split: Split) -> dict[str, Tensor]:
        """What decides which requests can be served: `tracked`, and `groups` (T,) where rows can only be
        asked for together."""
        return {"tracked": self.tracked(split).cpu()}

    def estimated_bytes(self, watched: RecordedTraining) -> int:
        """Bytes that the record will take, expected before the first step."""
        raise NotImplementedError

    def watch(self, steps: Iterator[Step], watched: RecordedTraining) -> Iterator[Step]:
        """Passes the steps on, writing the record into the folder."""
        raise NotImplementedError

    def check(self, watched: RecordedTraining, option: str) -> None:
        """Raises UserError where this training cannot be recorded."""
        refuse_batch_norm(watched.model)

    def summary(self, watched: RecordedTraining, option: str, asked: int) -> str:
        """The cost sheet: bytes in all, per tracked row and free, and the share of batches that a
        request for `asked` rows hits."""
        bill, rows = self.estimated_bytes(watched), max(1, len(self.tracked(watched.split)))
        free = shutil.disk_usage(watched.folder).free
        hit = share_of_batches_hit(len(watched.split), asked, watched.recipe.batch_size)
        return (
            f"{option}: {_size(bill)} expected, {_size(bill / rows)} per tracked row, {_size(free)} "
            f"free; a request for {asked} rows hits {hit:.1%} of the batches"
        )

    def smaller(self, option: str) -> str:
        """What makes the record smaller, in words, with its overrides."""
        return f"track fewer rows ({option}.classes=[…]) or store less ({option}.dtype=bf16)"

    def writer(self, folder: Path) -> Writer:
        return Writer(folder, go_on=self.on_full is OnFull.go_on)


def require_space(recorders: Mapping[str, Recorder], watched: Mapping[str, RecordedTraining]) -> None:
    """Raises UserError where the records of a training, by option, do not fit on their disk together."""
    bills = {option: recorder.estimated_bytes(watched[option]) for option, recorder in recorders.items()}
    free = min((shutil.disk_usage(each.folder).free for each in watched.values()), default=0)
    if sum(bills.values()) > free:
        largest = max(bills, key=lambda option: bills[option])
        raise UserError(
            f"{' and '.join(bills)} would write {_size(sum(bills.values()))}, but {_size(free)} are "
            f"free: {recorders[largest].smaller(largest)}"
        )


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


class Stopwatch:
    """Seconds that one part of a chain of steps takes: all of its own, without what it waits for."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def counting(self, steps: Iterator[Step]) -> Iterator[Step]:
        return self._timed(steps, 1)

    def excluding(self, steps: Iterator[Step]) -> Iterator[Step]:
        return self._timed(steps, -1)

    def _timed(self, steps: Iterator[Step], sign: int) -> Iterator[Step]:
        while True:
            started = time.perf_counter()
            try:
                step = next(steps)
            except StopIteration:
                return
            finally:
                self.seconds += sign * (time.perf_counter() - started)
            yield step


def close_record(writer: Writer, folder: Path, about: str, tensors: dict[str, Tensor]) -> None:
    """The last files of a record; where it was given up, only word of that."""
    if writer.lost:
        (folder / LOST).touch()
        return
    save_file(tensors, folder / ROWS)
    (folder / ABOUT).write_text(about)


def check_request(index: dict[str, Tensor], rows: Tensor, option: str) -> None:
    """Raises UserError where the record of `option` cannot serve a request for these rows."""
    tracked = index["tracked"]
    unknown = rows[~torch.isin(rows, tracked)]
    if len(unknown):
        raise UserError(
            f"row {int(unknown[0])} is to be forgotten, but {option} does not track it: "
            f"set {option}.classes=null and {option}.rows=null, or name it there"
        )
    if "groups" not in index:
        return
    asked = torch.isin(tracked, rows)
    groups = index["groups"]
    torn = groups[~asked][torch.isin(groups[~asked], groups[asked])]
    if len(torn):
        raise UserError(
            f"{option} keeps one sum per group, and only a part of group {int(torn[0])} is to be "
            f"forgotten: ask for whole groups, or set {option}.group_by=null"
        )


def share_of_batches_hit(rows: int, tracked: int, batch_size: int) -> float:
    """Probability that a batch of `batch_size` out of `rows` holds at least one of `tracked` rows
    (hypergeometric): what a request of this size makes of an amnesiac record.

    >>> round(share_of_batches_hit(60000, 6131, 64), 3)
    0.999
    """
    others = rows - tracked
    if others < batch_size:
        return 1.0
    ways = math.lgamma(others + 1) - math.lgamma(others - batch_size + 1)
    return 1 - math.exp(ways - math.lgamma(rows + 1) + math.lgamma(rows - batch_size + 1))
