"""Checkpoints: the state of a training, from which it goes on to the bits of an undisturbed one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from methods.training.cost import Meter

# Nested mappings and lists of numbers, strings, None and tensors; the keys are strings or integers.
State = Mapping[str, Any]


class Stateful(Protocol):
    """Holds a part of a training's state. The names of the methods are torch's."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any) -> Any: ...


class Checkpoint:
    """Keeps the state of the trainings of one piece of work; this one keeps nothing.

    A part joins by `add`, which gives it the state to go on from, if there is one. After each update of
    the weights the loop calls `step_ended`; between two calls the parts need not agree. `kept` counts
    the states that were written: a part with files of its own may replace those of a state only once a
    later one is whole.
    """

    kept = 0

    @contextmanager
    def training(self, meter: "Meter") -> Iterator["Checkpoint"]:
        """Yield the checkpoint of the next training, whose cost a meter counts.

        Parts that are added within the body belong to this training, and others to all.
        """
        yield self

    def add(self, name: str, part: Stateful, late: bool = False) -> None:
        """Let a part hold some of the state, under a name of its own.

        A `late` part joins after the last step, and begins anew if a state was written before that.
        """

    def reserve(self, room: Callable[[], int]) -> None:
        """Let states leave free as many bytes as `room` returns, for what the training itself writes."""

    def require_room(self, size: int) -> None:
        """Raise OSError if so many bytes more would take the room that is reserved."""

    def step_ended(self) -> None:
        """Write the state of all parts if it is time."""


# Of a training that cannot go on later.
NO_CHECKPOINT = Checkpoint()


class Values(dict[str, Any]):
    """A part that is a dictionary of plain values and tensors."""

    def state_dict(self) -> State:
        return self

    def load_state_dict(self, state: State) -> None:
        self.update(state)


class Place:
    """The place in a training, between two steps.

    `number` counts the steps. `epoch` is the present pass, `taken` counts the batches of it that were
    taken, and `generators` shuffle and augment its rows.
    """

    def __init__(self, generators: tuple[torch.Generator, ...], number: int = 0) -> None:
        self.generators = generators
        self.number = number
        self.epoch = 0
        self._begin()

    def end_step(self) -> None:
        self.number += 1
        self.taken += 1

    def end_pass(self) -> None:
        self.epoch += 1
        self._begin()

    def _begin(self) -> None:
        """Begin a pass: with these states, the generators draw it anew."""
        self.taken = 0
        self._begun = [generator.get_state() for generator in self.generators]

    def state_dict(self) -> State:
        numbers = {"number": self.number, "epoch": self.epoch, "taken": self.taken}
        return {**numbers, "begun": self._begun}

    def load_state_dict(self, state: State) -> None:
        self.number, self.epoch, self.taken = state["number"], state["epoch"], state["taken"]
        self._begun = list(state["begun"])
        for generator, begun in zip(self.generators, self._begun, strict=True):
            generator.set_state(begun)
