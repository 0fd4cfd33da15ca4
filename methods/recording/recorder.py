"""Recorders: during a training, they store the data that unlearning its rows will need.

A recorder wraps the steps of the training loop and changes no weight: the weights are bit-identical with
and without it. Several recorders can watch one training.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data.classes import ClassNumber
from data.component import Component
from data.disk import free_bytes, save_tensors
from data.errors import UserError
from data.row_file import content, read_rows
from data.split import Split
from data.streams import Streams
from methods.recording.estimates import in_words, largest_count, share_of_batches_hit
from methods.recording.files import LOST, Writer
from methods.training.checkpoint import NO_CHECKPOINT, Checkpoint, State, Stateful
from methods.training.cost import now
from methods.training.descent import Recipe, Step
from methods.training.processes import ALONE, Processes
from methods.weights.layers import refuse_batch_norm

# The last files of every record: the rows that it can serve, and the values needed to read it.
ROWS, ABOUT = "rows.safetensors", "about.json"


class OnFull(Enum):
    """If the disk fills up: `stop` the training, or `go_on` to its end without the record."""

    stop = "stop"
    go_on = "go_on"


@dataclass(frozen=True)
class RecordedTraining:
    """A training that is about to begin: the model on its device, the training rows, the recipe, the
    recorder's random streams, the folder of the record, the checkpoint that keeps its state, and the
    processes that share its batches."""

    model: nn.Module
    split: Split
    recipe: Recipe
    streams: Streams
    folder: Path
    checkpoint: Checkpoint = NO_CHECKPOINT
    processes: Processes = ALONE

    def keep(self, part: Stateful, late: bool = False) -> None:
        """Make what a recorder has gathered so far a part of the training's state; `late` if it begins
        after the last step."""
        self.checkpoint.add(self.folder.name, part, late)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def steps(self) -> int:
        # E·⌈N/B⌉
        return self.recipe.epochs * math.ceil(len(self.split) / self.recipe.batch_size)


@dataclass(frozen=True)
class Recorder(Component):
    """Watches a training and writes a record of it.

    `classes` are the classes to track and `rows` a file of rows to track; both null track every row.
    `on_full` decides about the training if the disk fills up. A recorder with `passes_after_training`
    goes over the rows again after the last step. One that `goes_on` gives what it has gathered to
    `training.keep`; a training with another one begins anew after a kill.
    """

    goes_on: ClassVar[bool] = False
    passes_after_training: ClassVar[bool] = False

    classes: list[ClassNumber] | None
    rows: str | None
    on_full: OnFull

    def identity(self) -> dict[str, Any]:
        listed = None if self.rows is None else content(self._listed)
        classes = None if self.classes is None else sorted(set(self.classes))
        found = super().identity() | {"classes": classes, "rows": listed}
        del found["on_full"]  # a finished record is the same under both policies
        return found

    @cached_property
    def _listed(self) -> Any:
        assert self.rows is not None
        return read_rows(self.rows, "recorder.rows")

    def check_parameters(self, option: str) -> None:
        """Raise UserError for fields that contradict each other; `option` is the recorder's."""
        if self.classes == []:
            raise UserError(f"{option}.classes is empty: name the classes to track, or null for all")
        if self.classes is not None and self.rows is not None:
            raise UserError(f"{option}: track classes or rows, and set the other to null")
        if self.rows is not None:
            read_rows(self.rows, f"{option}.rows")

    def tracked(self, split: Split) -> Tensor:
        """Return the tracked rows (T,) in ascending order: those that a request can name later.

        Raise UserError if the file of rows lists one that is not in the split.
        """
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
        """Return the tensors that decide which requests can be served: `tracked` (T,), and `groups`
        (T,) if a group's rows can only be forgotten together."""
        return {"tracked": self.tracked(split).cpu()}

    def estimated_bytes(self, training: RecordedTraining, tracked: Tensor | None = None) -> int:
        """Return the expected size of a record of these rows (T,), by default of the rows it tracks."""
        raise NotImplementedError

    def watch(self, steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
        """Pass the steps on unchanged, and write the record into the training's folder."""
        raise NotImplementedError

    def check(self, training: RecordedTraining, option: str) -> None:
        """Raise UserError if this training cannot be recorded."""
        refuse_batch_norm(training.model)

    def summary(self, training: RecordedTraining, option: str, asked: int) -> str:
        """Return one line: expected bytes, in all and per tracked row, free bytes, and the share of
        batches that a request for `asked` rows hits."""
        size, rows = self.estimated_bytes(training), max(1, len(self.tracked(training.split)))
        free = free_bytes(training.folder)
        # the share of the updates that amnesiac unlearning of the request would subtract
        hit = share_of_batches_hit(len(training.split), asked, training.recipe.batch_size)
        return (
            f"{option}: {in_words(size)} expected, {in_words(size / rows)} per tracked row, "
            f"{in_words(free)} free; a request for {asked} rows hits {hit:.1%} of the batches"
        )

    def fits(self, training: RecordedTraining, free: int, **changes: Any) -> bool:
        """Return true if the record would fit into `free` bytes with these fields changed."""
        return replace(self, **changes).estimated_bytes(training) <= free

    def cures(self, training: RecordedTraining, free: int, option: str) -> Iterator[str]:
        """Yield settings, as overrides. Each of them alone makes the record fit into `free` bytes."""
        split = training.split
        of_tracked = torch.isin(split.rows, self.tracked(split))
        tracked, labels = split.rows[of_tracked], split.labels[of_tracked]
        classes, sizes = labels.unique(return_counts=True)
        largest = classes[sizes.argsort(descending=True)]  # if these fit, so do any others

        def fit(rows: Tensor) -> bool:
            return self.estimated_bytes(training, rows) <= free

        # the largest n for which even the n largest classes fit
        count = largest_count(lambda n: fit(tracked[torch.isin(labels, largest[:n])]), len(classes) - 1)
        if count and self.rows is None:
            yield f"{option}.classes=[…] with at most {count} class{'es' if count > 1 else ''}"
            return
        count = largest_count(lambda n: fit(tracked[:n]), len(tracked) - 1)
        if count:
            null = "" if self.classes is None else f"{option}.classes=null "
            yield f"{null}{option}.rows=<file> with at most {count} row{'s' if count > 1 else ''}"

    def writer(self, folder: Path) -> Writer:
        """Return the thread that writes this recorder's files."""
        return Writer(folder, go_on=self.on_full is OnFull.go_on)


class Stopwatch:
    """The seconds that one link of a chain of iterators takes, without the links that it waits for.

    Work that a link gave to a device is its own: the clock is read when the device has done it.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device

    def state_dict(self) -> State:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: State) -> None:
        self.seconds = state["seconds"]

    def counting(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Pass the steps on, and add the time that they take."""
        return self._timed(steps, 1)

    def excluding(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Pass the steps on, and subtract the time that they take."""
        return self._timed(steps, -1)

    def _timed(self, steps: Iterator[Step], sign: int) -> Iterator[Step]:
        while True:
            started = now(self._device)
            try:
                step = next(steps)
            except StopIteration:
                return
            finally:
                self.seconds += sign * (now(self._device) - started)
            yield step


def close_record(writer: Writer, folder: Path, about: str, tensors: dict[str, Tensor]) -> None:
    """Write the last files of a record, or only the file `lost` if the writer gave up on a full disk."""
    if writer.lost:
        (folder / LOST).touch()
        return
    (folder / LOST).unlink(missing_ok=True)  # of a killed training that had only begun to write
    save_tensors(tensors, folder / ROWS)
    (folder / ABOUT).write_text(about)


def check_request(index: dict[str, Tensor], rows: Tensor, option: str) -> None:
    """Raise UserError if a record with this index cannot serve a request for these rows."""
    tracked = index["tracked"]
    # A row that was not tracked left nothing in the record to subtract.
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
    # A group's sum cannot be split, so a request must name all its rows or none.
    torn = groups[~asked][torch.isin(groups[~asked], groups[asked])]
    if len(torn):
        raise UserError(
            f"{option} keeps one sum per group, and only a part of group {int(torn[0])} is to be "
            f"forgotten: ask for whole groups, or set {option}.group_by=null"
        )
