"""Checkpoints: the weights before the first step and after every epoch.

Idea: where training stood can be returned to.
Record: `epoch_<e>.safetensors` for e = 0 … E, as the model's state dictionary names its tensors.
Size: (E + 1)·M numbers, whatever is tracked.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from safetensors.torch import save_file
from torch import nn

from methods.recording.recorder import RecordedTraining, Recorder, close_record
from methods.training.descent import Step


@dataclass(frozen=True)
class Checkpoints(Recorder):
    kind: ClassVar[str] = "methods.recorders.checkpoints.Checkpoints"

    def estimated_bytes(self, watched: RecordedTraining) -> int:
        return 4 * watched.parameters * (watched.recipe.epochs + 1)

    def smaller(self, option: str) -> str:
        return "train for fewer epochs (training.epochs=…)"

    def watch(self, steps: Iterator[Step], watched: RecordedTraining) -> Iterator[Step]:
        with self.writer(watched.folder) as writer:
            saved = 0
            for step in steps:
                if step.epoch == saved:
                    writer.do(_saving(watched.model, watched.folder, saved))
                    saved += 1
                yield step
            writer.do(_saving(watched.model, watched.folder, watched.recipe.epochs))
        about = json.dumps({"epochs": watched.recipe.epochs})
        close_record(writer, watched.folder, about, {"tracked": self.tracked(watched.split).cpu()})


def _saving(model: nn.Module, folder: Path, epoch: int) -> "partial[None]":
    """Takes a copy of the weights now, to be saved later."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return partial(save_file, state, folder / f"epoch_{epoch}.safetensors")
