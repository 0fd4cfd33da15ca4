"""Load a data set, and hold it to what its source says of it: a wrong image or label shows far from its
cause, as an index error in a loss, or nowhere."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from data.contracts import named, returned
from data.errors import UserError
from data.sources import Source
from data.split import Dataset, Split


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
