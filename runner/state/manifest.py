"""Manifests: what a sweep is to make, by which command, code and machine; written before its first cell.

`<paths.root>/sweeps/<date>/<time>/manifest.json` lies beside the folders of the cells, whose notes say
how each one went.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import Until
from data.disk import replacing
from runner.results import Result

if TYPE_CHECKING:  # a cell's plan imports torch, which a report does without
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
    """The command of a sweep, its environment (see `provenance`), its cells, and its folder."""

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
    cells: Sequence["Cell"], stored: Mapping[tuple[str, ...], Result], shared: Sequence[str]
) -> list[Listed]:
    """Return the cells of a sweep as a manifest lists them. Those of `stored` results have no plan.

    `shared` are overrides of the whole sweep, which every cell's command begins with.
    """
    return [
        _listed(number, (*shared, *cell.overrides), cell, stored.get(cell.overrides))
        for number, cell in enumerate(cells)
    ]


def _listed(number: int, overrides: tuple[str, ...], cell: "Cell", result: Result | None) -> Listed:
    if result is not None:
        return Listed(number, overrides, result.name, result.key, Until.end.value)
    if cell.plan is None:
        return Listed(number, overrides, None, None, Until.end.value, cell.refused)
    return Listed(number, overrides, cell.plan.name, cell.plan.key, cell.plan.until.value)


def environment(cells: Sequence["Cell"], stored: Mapping[tuple[str, ...], Result]) -> Mapping[str, Any]:
    """Return the environment of a sweep: that of its first cell here, or of its first stored result."""
    from runner.provenance import provenance  # imports torch

    for cell in cells:
        if cell.plan is not None:
            return provenance(cell.plan.device, cell.plan.threads)
    return next((result.provenance["row"] for result in stored.values()), {})


def manifests(root: Path) -> list[Manifest]:
    """Return the manifests of all sweeps below `paths.root`, the oldest first. A damaged one is left
    out."""
    found = []
    for path in sorted((root / "sweeps").glob(f"*/*/{MANIFEST}")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text())
            cells = [
                Listed(**{**cell, "overrides": tuple(cell["overrides"])}) for cell in content["cells"]
            ]
            found.append(Manifest(content["command"], content["environment"], cells, path.parent))
    return found
