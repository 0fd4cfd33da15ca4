"""Offline W&B runs as tests read them: the records of a file as the client's own messages."""

import json
import time
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

from runner.tracking.offline import records

VARIABLES = ("MODE", "PROJECT", "ENTITY", "NAME", "TAGS", "RUN_GROUP", "RUN_ID", "SWEEP_ID", "DIR")


class Written:
    """What the file of an offline run holds. `axes` has the axis of every name that has one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run: Any = None
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.axes: dict[str, str] = {}
        self.exit_code: int | None = None
        for data in records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            self._add(record, record.WhichOneof("record_type"))

    def _add(self, record: Any, kind: str) -> None:
        if kind == "run":
            self.run = record.run
            self.config |= _items(record.run.config.update)
        elif kind == "config":
            self.config |= _items(record.config.update)
        elif kind == "summary":
            self.summary |= _items(record.summary.update)
        elif kind == "history":
            self.history.append(_items(record.history.item))
        elif kind == "metric" and record.metric.step_metric:
            self.axes[record.metric.name] = record.metric.step_metric
        elif kind == "exit":
            self.exit_code = record.exit.exit_code

    def curve(self, name: str) -> list[Any]:
        """The values that were logged under a name, in order."""
        return [point[name] for point in self.history if name in point]

    def table(self, name: str) -> tuple[list[str], list[list[Any]]]:
        """The columns and the lines of a table."""
        (path,) = self.path.parent.glob(f"files/media/table/{name}_*.table.json")
        table = json.loads(path.read_text())
        return table["columns"], table["data"]


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def files(root: Path) -> list[Path]:
    """The files of all offline runs under a root."""
    return sorted(root.glob("wandb/offline-run-*/*.wandb"))


def written_in(root: Path) -> list[Written]:
    """The offline runs under a root, each with its end: the client's own process may be behind."""
    patience = time.monotonic() + 60
    while True:
        found = [Written(path) for path in files(root)]
        if all(each.exit_code is not None for each in found) or time.monotonic() > patience:
            return found
        time.sleep(0.1)
