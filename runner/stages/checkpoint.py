"""Checkpoints on disk: the state of a training, written into the scratch folder of its artefacts."""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import load_file
from torch import Tensor

from data.disk import free_bytes, replacing, save_tensors, says_full, synced
from data.errors import UserError
from methods.training.checkpoint import Checkpoint, State, Stateful
from methods.training.cost import Meter
from runner.signals import ENDING
from runner.store import Making
from runner.store.artefact import sha256_of
from runner.store.making import ABOUT

Tensors = dict[str, Tensor]


class StoredCheckpoint(Checkpoint):
    """Writes the state every `minutes`, and before a signal ends the process.

    `making` is the work, which goes on from its state, if it has one. `say` receives messages for the
    user. A state is a file of tensors; `state.json`, which is written last, holds its name and checksum,
    and all other values.
    """

    def __init__(self, making: Making, minutes: float, say: Callable[[str], None]) -> None:
        self._making = making
        self._folder = making.state
        self._seconds = 60 * minutes
        self._say = say
        self._number = 0  # of the present training, from 1
        self._lasting: dict[str, Stateful] = {}
        self._own: dict[str, Stateful] = {}
        self._meter: Meter | None = None
        self._reserved: Callable[[], int] = lambda: 0
        self._goes_on_at, self._saved = self._read()

    @contextmanager
    def training(self, meter: Meter) -> Iterator[Checkpoint]:
        self._number += 1
        self._meter, self._own = meter, {}
        self._due = time.monotonic() + self._seconds
        every: dict[str, Stateful] = {"meter": meter, "random": _Random(meter.device), **self._lasting}
        try:
            with ENDING.waiting():
                for name, part in every.items():
                    self.add(name, part)
                yield self
        finally:
            self._meter = None

    def add(self, name: str, part: Stateful, late: bool = False) -> None:
        if self._meter is None:
            self._lasting[name] = part
            return
        self._own[name] = part
        if self._number == self._goes_on_at and (name in self._saved or not late):
            self._load(name, part)

    def _load(self, name: str, part: Stateful) -> None:
        """Give a part its state. Raise UserError, which ends the work without its state, if the state
        does not fit: it would not fit the next time."""
        try:
            part.load_state_dict(self._saved[name])
        except Exception as error:
            passing = isinstance(error, OSError | torch.OutOfMemoryError)
            if passing and not isinstance(error, FileNotFoundError):
                raise
            raise UserError(
                f"the state of a killed training does not fit its {name} ({type(error).__name__}: "
                f"{error}): it is removed; say the command again, and the training begins anew"
            ) from error

    def reserve(self, room: Callable[[], int]) -> None:
        self._reserved = room

    def require_room(self, size: int) -> None:
        if free_bytes(self._folder) < size + self._reserved():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def step_ended(self) -> None:
        if ENDING.asked or time.monotonic() > self._due:
            if self._number >= self._goes_on_at:  # else an earlier training is repeated to get there
                self._write_if_there_is_room()
            self._due = time.monotonic() + self._seconds
            ENDING.act()

    def _write_if_there_is_room(self) -> None:
        assert self._meter is not None
        with self._meter.paused():
            try:
                # the meter's state comes first, and does not count the time of the others
                self._write({name: part.state_dict() for name, part in self._own.items()})
            except Exception as error:
                if not says_full(error):
                    raise
                self._say("the disk has no room for the state: the training goes on without keeping it")

    def _write(self, state: Mapping[str, State]) -> None:
        tensors: Tensors = {}
        values = _split(state, tensors)
        file = self._folder / f"{uuid4().hex}.safetensors"
        self.require_room(sum(tensor.nbytes for tensor in tensors.values()))
        try:
            save_tensors(tensors, file)
            synced(file)
            about = {
                **self._making.about(),
                "training": self._number,
                "file": file.name,
                "sha256": sha256_of(file),
                "values": values,
            }
            with replacing(self._folder / ABOUT) as scratch:
                scratch.write_text(json.dumps(about))
                synced(scratch)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        synced(self._folder)
        self.kept += 1
        for old in self._folder.glob("*.safetensors"):
            if old != file:
                old.unlink()

    def _read(self) -> tuple[int, Mapping[str, State]]:
        """Return the number of the training that the state is of, and its parts; 0 without a state."""
        if not (self._folder / ABOUT).exists():
            return 0, {}
        about = json.loads((self._folder / ABOUT).read_text())
        return about["training"], _joined(about["values"], load_file(self._folder / about["file"]))


class _Random:
    """The global random generators, from which dropout draws."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state_dict(self) -> State:
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def load_state_dict(self, state: State) -> None:
        torch.set_rng_state(state["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)


def _split(value: Any, tensors: Tensors) -> Any:
    """Return a state as a JSON-like value, its tensors replaced by their names in `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _split(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return [_split(inner, tensors) for inner in value]
    return value


def _joined(value: Any, tensors: Tensors) -> Any:
    """Return the state that `_split` has taken apart."""
    if isinstance(value, list):
        return [_joined(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: _joined(inner, tensors) for key, inner in value["pairs"]}
