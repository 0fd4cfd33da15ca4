"""Load a data set and select a request, and hold them to what a run expects: a wrong image, label or row
shows far from its cause, as an index error in a loss, or nowhere."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from data.contracts import named, returned
from data.errors import UserError
from data.requests import Request, Scenario
from data.sources import Source
from data.split import Dataset, Split
from data.streams import Streams


def load(source: Source, root: Path, download: bool) -> Dataset:
    """Return the whole data set of a source, on the CPU.

    Raise UserError if a file is missing or damaged, or if what `load` returned is no data set, or not of
    the images and classes that the source declares.
    """
    found = returned(source, "load", source.load(root, download), Dataset, "a data.split.Dataset")
    wrong = [*_of_split("train", found.train, source), *_of_split("test", found.test, source)]
    if found.classes != source.classes:
        wrong.append(f"{found.classes} classes where the source declares {source.classes}")
    if wrong:
        raise UserError(f"{named(source, 'load')} returned {wrong[0]}")
    return found


def select(scenario: Scenario, dataset: Dataset, streams: Streams) -> Request:
    """Return the request of a scenario.

    Raise UserError if the data set cannot serve it, or if what `select` returned is no request for rows
    of the data set, ascending, each once.
    """
    meaning = "a data.requests.Request"
    found = returned(scenario, "select", scenario.select(dataset, streams), Request, meaning)
    for part, rows, known in (
        ("rows", found.rows, dataset.train.rows),
        ("test", found.test, dataset.test.rows),
    ):
        plain = rows.dtype == torch.int64 and rows.ndim == 1
        if not (plain and bool((rows.diff() > 0).all()) and bool(torch.isin(rows, known).all())):
            raise UserError(
                f"{named(scenario, 'select')} returned a request whose {part} are not numbers of the "
                "data set's rows, ascending, each once, as int64: data.requests.request_of makes them "
                "from masks"
            )
    return found


def _of_split(part: str, split: Split, source: Source) -> Iterator[str]:
    """Yield what is wrong with a split, the first cause first."""
    shape = (len(split.rows), source.channels, source.size, source.size)
    images = split.images
    if not len(split.rows):
        yield f"no {part} row: it must return some of both parts"
    if images.dtype != torch.uint8 or tuple(images.shape) != shape:
        yield (
            f"{part} images {tuple(images.shape)} of {images.dtype}, where its rows, channels and size "
            f"ask for {shape} of torch.uint8"
        )
    yield from _of_labels(f"{part} labels", split.labels, shape[0], source.classes)
    if source.fine_classes is not None:
        fine = torch.empty(0) if split.fine is None else split.fine
        yield from _of_labels(f"fine {part} labels", fine, shape[0], source.fine_classes)


def _of_labels(what: str, labels: Tensor, rows: int, classes: int) -> Iterator[str]:
    if labels.dtype != torch.int64 or tuple(labels.shape) != (rows,):
        yield f"{what} {tuple(labels.shape)} of {labels.dtype}, where ({rows},) of torch.int64 must be"
    elif rows and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        yield (
            f"{what} from {int(labels.min())} to {int(labels.max())}, where its {classes} classes ask "
            f"for 0 to {classes - 1}"
        )
