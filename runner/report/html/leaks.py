"""Rows that leak: the forgotten training rows that an attack finds most surely, with their images."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data.errors import UserError
from runner.compose import composed
from runner.figure.leaks import of_rows
from runner.report import Report
from runner.report.html.pictures import FEW, address
from runner.results import Result
from runner.tracking.sections import LEAKING

if TYPE_CHECKING:
    from torch import Tensor


class Leak(NamedTuple):
    """A training row: its number and label, its score in nats, and an address of its image, which is
    empty if the data is not there."""

    row: int
    label: int
    score: float
    image: str


class Leaks(NamedTuple):
    """The rows that leak by the title of their line, and the number of lines that are left out."""

    rows: dict[str, list[Leak]]
    left_out: int


def leaks(report: Report, root: Path) -> Leaks:
    """Return the rows that leak, of at most `FEW` lines that have them."""
    found = of_rows(report.results, root, LEAKING)
    shown = [line for line in report.lines() if line in found][:FEW]
    images: dict[str, Mapping[int, str]] = {}
    for setting in dict.fromkeys(line.setting for line in shown):
        own = [found[line] for line in shown if line.setting == setting]
        numbers = {int(row) for _, rows in own for row, _, _ in rows}
        images[setting] = _images(own[0][0], root, numbers)
    by_line = {
        report.titles[line]: [
            Leak(int(row), int(label), score, images[line.setting].get(int(row), ""))
            for row, label, score in found[line][1]
        ]
        for line in shown
    }
    return Leaks(by_line, len(found) - len(shown))


def _images(result: Result, root: Path, rows: Iterable[int]) -> Mapping[int, str]:
    """Return the addresses of the images of training rows; none if the data of a run is not there, or
    if its options name another request by now."""
    import torch

    from runner.plan import Plan
    from runner.plan.identities import request
    from runner.stages import Workspace
    from runner.store import Store, fingerprint

    try:
        plan = Plan.of(*composed(result.overrides))
        if ["request", fingerprint(request(plan))] not in map(list, result.artefacts):
            return {}
        train = Workspace(plan, Store(root / "store")).dataset.train
    except UserError:
        return {}
    split = train.only(torch.tensor(sorted(rows)))
    return {
        int(row): address(_png(image), "png")
        for row, image in zip(split.rows, split.images, strict=True)
    }


def _png(image: "Tensor") -> bytes:
    """Return an image (C, H, W) of bytes as PNG."""
    from PIL import Image

    with BytesIO() as file:
        # (C, H, W) → (H, W, C), or (H, W) of a grey image
        Image.fromarray(image.cpu().permute(1, 2, 0).squeeze(2).numpy()).save(file, "png")
        return file.getvalue()
