"""The processes that torchrun started: the first runs the program, and the others help it to train."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist

from data.errors import UserError
from methods.training.messages import BACKENDS, BETWEEN, Link, Lost, handed_out, reaching
from methods.training.processes import ALONE, Follower, Leader, Processes
from runner import process
from runner.signals import SIGNALS


class Team:
    """The `processes` that share the trainings of this one."""

    def __init__(self) -> None:
        self.processes: Processes = ALONE
        self._count = 1

    @contextmanager
    def gathered(self) -> Iterator[bool]:
        """Gather the processes that torchrun started; yield whether this one runs the program.

        The others help the first one to train, and yield false when it needs them no more.
        """
        with reaching():
            dist.init_process_group("gloo", timeout=BETWEEN)
        self._count = dist.get_world_size()
        if dist.get_rank():
            _help()
            yield False
        else:
            try:
                yield True
            finally:
                self._end()
        dist.destroy_process_group()

    def begin(self, device: torch.device, threads: int, compiled: bool) -> None:
        """Get the other processes ready for trainings on a device. Raise UserError if they cannot help.

        `compiled` says whether the model of the trainings is compiled.
        """
        if self._count == 1:
            return
        require_means(device, compiled)
        handed_out((device.type, threads))
        self.processes = Leader(Link(device))

    def _end(self) -> None:
        """Let the other processes end."""
        with suppress(Lost):  # they have ended
            if isinstance(self.processes, Leader):
                self.processes.end()
            else:
                handed_out(None)


# torchrun's processes belong to this one, so there is one team.
TEAM = Team()


def require_rows(rows: int) -> None:
    """Raise UserError if a batch of so many rows leaves a process without one."""
    count = TEAM.processes.count
    if rows < count:
        raise UserError(
            f"torchrun started {count} processes, and a batch has {rows} rows: start at most {rows} "
            "with --nproc-per-node, or set a larger training.batch_size"
        )


def _help() -> None:
    """Help the first process to train, until it needs this one no more."""
    for number in SIGNALS:  # torchrun sends them to all, and the first process decides what ends
        signal.signal(number, signal.SIG_IGN)
    given = handed_out()
    if given is None:
        return
    kind, threads = given
    device = torch.device(kind)
    if kind == "cuda":
        device = torch.device(kind, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    process.prepare(device, threads)
    Follower(Link(device), device).follow()


def require_means(device: torch.device, compiled: bool) -> None:
    """Raise UserError if several processes cannot train on a device, or not a compiled model."""
    if compiled:
        raise UserError(
            "several processes train no compiled model: set training.compile=false, or start without "
            "torchrun"
        )
    backend = BACKENDS.get(device.type)
    if backend is None or not dist.is_backend_available(backend):
        raise UserError(
            f"this build of torch cannot exchange tensors of device={device} between processes: set "
            "device=cpu, or start without torchrun"
        )
    if device.type == "cuda":
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus or device.index:
            raise UserError(
                f"torchrun started {here} processes on a machine with {gpus} GPUs, and each needs its "
                f"own, the first one GPU 0: set device=cuda and --nproc-per-node={min(here, gpus)}"
            )
