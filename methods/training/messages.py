"""The messages between the processes of one training (see `methods.training.processes`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# The longest wait for a message within a task, and for a task.
WITHIN, BETWEEN = timedelta(minutes=30), timedelta(days=365)

# The backend of torch.distributed that carries tensors of a type of device.
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class Lost(ConnectionError):
    """Another process has ended. The state of the training is still good."""


@contextmanager
def reaching() -> Iterator[None]:
    """Raise Lost if a message of the body does not arrive."""
    try:
        yield
    except RuntimeError as error:  # torch has no narrower one for a connection that was closed
        raise Lost(
            "another process of the training has ended, and its message says why: the same command goes "
            "on from what is stored"
        ) from error


class Asked(IntEnum):
    """The work that the first process asks the others for."""

    end = 0
    hold = 1
    forward = 2
    backward = 3
    factors = 4


class Link:
    """The messages of this process, which has the number `rank` among `count`, from 0.

    Tasks go through torch's default group, whose backend is gloo, and where a process may wait for days
    while the first one is busy. Tensors on `device` go through a group with the device's own backend.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        with reaching():
            group = dist.new_group(backend=BACKENDS[device.type], timeout=WITHIN)
        assert isinstance(group, dist.ProcessGroup)  # every process is a member
        self._group = group

    def tell(self, task: Asked, rows: int = 0) -> None:
        """Give all others a task about a batch of so many rows."""
        with reaching():
            dist.broadcast(torch.tensor([task, rows]), 0)

    def hear(self) -> tuple[Asked, int]:
        """Wait for a task; return it, and the number of rows."""
        found = torch.empty(2, dtype=torch.int64)
        with reaching():
            dist.broadcast(found, 0)
        return Asked(int(found[0])), int(found[1])

    def spread(self, tensor: Tensor) -> Tensor:
        """Fill a tensor with that of the first process, and return it."""
        with reaching():
            dist.broadcast(tensor, 0, group=self._group)
        return tensor

    def add(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes to the first one."""
        with reaching():
            dist.reduce(tensor, 0, group=self._group)
        return tensor

    def send(self, tensor: Tensor, rank: int = 0) -> None:
        """Send a tensor to a process, if it has rows."""
        if len(tensor):
            with reaching():
                dist.send(tensor.contiguous(), rank, group=self._group)

    def receive(self, tensor: Tensor, rank: int = 0) -> Tensor:
        """Fill a tensor with the one that a process sends, if it has rows, and return it."""
        if len(tensor):
            with reaching():
                dist.recv(tensor, rank, group=self._group)
        return tensor

    def part(self, rank: int, rows: int) -> int:
        """Return the number of rows that a process has of a batch: as `tensor_split` parts it."""
        return len(range(rank, rows, self.count))

    def send_parts(self, whole: Tensor) -> Tensor:
        """Send every process its rows of a tensor (B, …), and return this one's."""
        own, *others = whole.tensor_split(self.count)
        for rank, part in enumerate(others, 1):
            self.send(part, rank)
        return own

    def joined(self, own: Tensor, rows: int) -> Tensor:
        """Return a tensor (B, …) for a batch of so many rows, of which this process has its `own` and
        the others send theirs."""
        shape = own.shape[1:]
        others = [own.new_empty(self.part(rank, rows), *shape) for rank in range(1, self.count)]
        return torch.cat([own, *(self.receive(part, rank) for rank, part in enumerate(others, 1))])


def handed_out(value: Any = None) -> Any:
    """Return the value of the first process in all of them."""
    box = [value]
    with reaching():
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    return box[0]
