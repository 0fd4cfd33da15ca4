"""Manifests: what a sweep is to make, by which command, code and machine; written before its first cell.

`<paths.root>/sweeps/<date>/<time>/manifest.json` lies beside the folders of the cells, whose notes say
how each one went.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.disk import replacing
from runner.provenance import provenance
from runner.results import Result
from runner.state.cells import Cell

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Listed:
    """A cell of a manifest: its number, its overrides, and the name and the key of its result.

    A cell that was refused has neither name nor key, but the reason. `until` is the stage that ends it.
    """

    number: int
    overrides: tuple[str, ...]
    name: str | None
    key: str | None
    until: str
    refused: str = ""


@dataclass(frozen=True)
class Manifest:
    """The command of a sweep, its environment (see `provenance`), its cells, and the folder it lies in."""

    command: str
    environment: Mapping[str, Any]
    cells: Sequence[Listed]
    folder: Path

    def write(self) -> None:
        """Write the manifest into its folder, whole or not at all."""
        content = asdict(self)
        del content["folder"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / MANIFEST) as scratch:
            scratch.write_text(json.dumps(content, indent=1) + "\n")


def listed(
    jobs: Sequence[Sequence[str]],
    stored: Mapping[tuple[str, ...], Result],
    plan: Callable[[Iterable[Sequence[str]]], list[Cell]],
) -> tuple[list[Listed], Mapping[str, Any]]:
    """Return the cells of a sweep as a manifest lists them, and the environment of its first one.

    `stored` holds the results of cells that need no plan; `plan` plans the others.
    """
    planned = {cell.overrides: cell for cell in plan(job for job in jobs if tuple(job) not in stored)}
    environments = [
        provenance(cell.plan.device, cell.plan.threads)
        for cell in planned.values()
        if cell.plan is not None
    ][:1]
    environments += [result.provenance["row"] for result in stored.values()][:1]
    found = []
    for number, job in enumerate(map(tuple, jobs)):
        if job in stored:
            found.append(Listed(number, job, stored[job].name, stored[job].key, "end"))
            continue
        plan_, refused = planned[job].plan, planned[job].refused
        if plan_ is None:
            found.append(Listed(number, job, None, None, "end", refused))
        else:
            found.append(Listed(number, job, plan_.name, plan_.key, plan_.until.value))
    return found, environments[0] if environments else {}


def manifests(root: Path) -> list[Manifest]:
    """Return the manifests of all sweeps below `paths.root`, the oldest first. Damaged ones are left out."""
    found = []
    for path in sorted((root / "sweeps").glob(f"*/*/{MANIFEST}")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text())
            cells = [
                Listed(**{**cell, "overrides": tuple(cell["overrides"])}) for cell in content["cells"]
            ]
            found.append(Manifest(content["command"], content["environment"], cells, path.parent))
    return found
