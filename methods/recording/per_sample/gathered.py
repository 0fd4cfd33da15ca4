"""The parts of a record while it is written."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from methods.recording.files import EntryFile, Writer
from methods.recording.per_sample.index import EntryIndex
from methods.recording.per_sample.ring import Packed
from methods.recording.per_sample.sums import SumFile
from methods.training.checkpoint import State, Stateful


@dataclass(frozen=True)
class Gathered:
    """The record so far, as a part of the training's state."""

    writer: Writer
    entries: EntryIndex
    sums: SumFile
    file: EntryFile

    def write(self, landed: Callable[[], Packed], slots: Tensor) -> None:
        """Add the numbers of a step to the sums of their slots (n,), and append its entries."""
        packed = landed()
        if packed.sums.shape[1]:
            self.sums.add(slots, packed.sums)
        if packed.entries.shape[1]:
            self.file.append(packed.entries)

    def state_dict(self) -> State:
        writer = self.writer.state_dict()
        if self.writer.lost:
            return {"writer": writer}
        parts: dict[str, Stateful] = {"entries": self.entries, "sums": self.sums, "file": self.file}
        return {"writer": writer, **{name: part.state_dict() for name, part in parts.items()}}

    def load_state_dict(self, state: State) -> None:
        self.writer.load_state_dict(state["writer"])
        if not self.writer.lost:
            self.entries.load_state_dict(state["entries"])
            self.sums.load_state_dict(state["sums"])
            self.file.load_state_dict(state["file"])
