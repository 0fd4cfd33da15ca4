"""Checkpoints: the weights before the first step and after every epoch.

Idea: a method can go back to an earlier state of the training.
Record: `epoch_<e>.safetensors` for e = 0 … E, with the tensors of the model's state dictionary.
Size: (E + 1)·M float32 numbers for E epochs and M weights, for any tracked rows.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from safetensors.torch import load_file
from torch import Tensor, nn

from data.disk import save_tensors, synced
from methods.recording.files import Writer
from methods.recording.recorder import RecordedTraining, Recorder, close_record
from methods.training.checkpoint import State
from methods.training.descent import Step


@dataclass(frozen=True)
class Checkpoints(Recorder):
    """Saves the weights before the first step and after every epoch."""

    kind: ClassVar[str] = "methods.recorders.checkpoints.Checkpoints"
    goes_on: ClassVar[bool] = True

    def estimated_bytes(self, training: RecordedTraining, tracked: Tensor | None = None) -> int:
        return 4 * training.parameters * (training.recipe.epochs + 1)

    def cures(self, training: RecordedTraining, free: int, option: str) -> Iterator[str]:
        # (E + 1)·M·4 ≤ free
        epochs = free // max(1, 4 * training.parameters) - 1
        if epochs > 0:
            yield f"training.epochs={epochs}"

    def watch(self, steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
        folder, last = training.folder, training.recipe.epochs
        with self.writer(folder) as writer:
            saved = _Saved(writer, folder)
            training.keep(saved)
            for step in steps:
                # A step comes before its update: at the first of epoch e, e epochs are complete.
                if step.epoch == saved.count:
                    writer.do(_saving(training.model, folder, saved.count))
                    saved.count += 1
                yield step
            writer.do(_saving(training.model, folder, last))
        close_record(writer, folder, json.dumps({"epochs": last}), self.index(training.split))


@dataclass
class _Saved:
    """The number of states that were saved so far."""

    writer: Writer
    folder: Path
    count: int = 0

    def state_dict(self) -> State:
        writer = self.writer.state_dict()
        for epoch in range(0 if self.writer.lost else self.count):
            synced(_file(self.folder, epoch))
        return {"writer": writer, "count": self.count}

    def load_state_dict(self, state: State) -> None:
        self.writer.load_state_dict(state["writer"])
        self.count = state["count"]


def _saving(model: nn.Module, folder: Path, epoch: int) -> "partial[None]":
    """Copy the weights now; return the job that saves the copy."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return partial(save_tensors, state, _file(folder, epoch))


def _file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch_{epoch}.safetensors"


def weights_after(folder: Path, epochs: int) -> dict[str, Tensor]:
    """Return the state dictionary after this number of epochs, from 0, on the CPU."""
    return load_file(_file(folder, epochs))
