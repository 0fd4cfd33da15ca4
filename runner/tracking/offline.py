"""Offline runs of W&B: what their files hold, and one folder for each run.

The client opens a new folder whenever a run starts, also for an id that it has written before. A run
that is said again holds what its earlier folder holds, so one of the two is removed. Nothing is lost: a
folder goes only if the other one holds all of its points and scores.
"""

import json
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runner.tracking.sections import MODELS

# The log's format is that of LevelDB: blocks with pieces of records, of which some kinds are the last.
BLOCK, HEADER, LAST = 32768, 7, (1, 4)

# The client's own process ends a file a moment after the run is finished; on a busy machine, later.
PATIENCE = 20.0


def records(log: bytes) -> Iterator[bytes]:
    """Yield the records of a W&B file, up to one that is only partly written.

    After 7 bytes of header come blocks of 32 KiB with pieces of (checksum, length, type); type 1 is a
    whole record, 2 to 4 are its first to last piece.
    """
    at, whole = HEADER, b""
    while at + HEADER <= len(log):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", log[at : at + HEADER])
        if at + HEADER + length > len(log):
            return
        whole += log[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in LAST:
            yield whole
            whole = b""


class OfflineRun:
    """What the file of an offline run holds, as far as it is written.

    `config` and `summary` have the last value of every name, and `history` has every point. Files that
    the run logged stand by their checksum; the table of the models is left out, whose numbers all stand
    by themselves. `ended` is true if the file is complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.ended = False
        for file in folder.glob("*.wandb"):
            for record in records(file.read_bytes()):
                self._add(record)

    def _add(self, data: bytes) -> None:
        from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.config |= _values(record.run.config.update)
        elif kind == "config":
            self.config |= _values(record.config.update)
        elif kind == "summary":
            self.summary |= _values(record.summary.update)
        elif kind == "history":
            self.history.append(_values(record.history.item))
        self.ended |= kind == "exit"

    @cached_property
    def _points(self) -> set[frozenset[tuple[str, str]]]:
        """The points as sets of name and value."""
        return {
            frozenset((name, json.dumps(value)) for name, value in point.items())
            for point in self.history
        }

    @property
    def synced(self) -> bool:
        """True if `wandb sync` has uploaded the folder."""
        return any(self.folder.glob("*.wandb.synced"))

    def holds(self, other: "OfflineRun") -> bool:
        """Return whether this run has all points and scores of another one, and its options by name.

        The last point of a curve, in the summary, is one of its points: a killed run has an earlier one.
        """
        own = self._points
        points = {name for point in other.history for name in point}
        rest = {name: value for name, value in other.summary.items() if name not in points}
        return (
            all(point in own or any(point <= mine for mine in own) for point in other._points)
            and rest.items() <= self.summary.items()
            and other.config.keys() <= self.config.keys()
        )


def _values(items: Any) -> dict[str, Any]:
    """Return the values of items by name, without the client's own, such as the time."""
    found = {}
    for item in items:
        path = list(item.nested_key) or [item.key]
        if path[0].startswith("_") or path[0] == MODELS or (len(path) > 1 and path[-1] != "sha256"):
            continue
        found["/".join(path)] = json.loads(item.value_json)
    return found


@contextmanager
def in_use(folder: Path) -> Iterator[bool]:
    """Mark a run's folder as in use by this process for as long as the body runs.

    Yield False if another living process uses it, or if it cannot be marked.
    """
    lock = FileLock(folder / "in_use.lock")
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def complete(folder: Path) -> bool:
    """Return whether the client wrote a finished run to its end, after a moment's patience."""
    patience = time.monotonic() + PATIENCE
    while not (done := OfflineRun(folder).ended) and time.monotonic() < patience:
        time.sleep(0.05)
    return done


def keep_one(folder: Path, run_id: str) -> None:
    """Keep one folder of a run that has just been written to `folder`: the one that holds the other.

    Of two that hold the same, the earlier one stays if it was uploaded. Folders that each hold
    something of their own stay, and `wandb sync` uploads them in the order of their times.
    """
    new = OfflineRun(folder)
    for place in sorted(folder.parent.glob(f"offline-run-*-{run_id}*/")):
        if place == folder:
            continue
        with in_use(place) as free:
            old = OfflineRun(place)
            repeated = old.holds(new) and old.config == new.config
            if not free or not (repeated or new.holds(old)):
                continue
            stays = repeated and (old.synced or not new.holds(old))
            shutil.rmtree(folder if stays else place, ignore_errors=True)
        if stays:
            _mend_link(folder.parent)
            return


def _mend_link(folder: Path) -> None:
    """Remove the client's link to the latest run if that run is gone."""
    link = folder / "latest-run"
    if link.is_symlink() and not link.exists():
        with suppress(OSError):
            link.unlink()
