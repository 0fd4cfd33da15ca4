"""Samples of the data that are the same for every model, whatever the seed of the run."""

from data.split import Split
from data.streams import Streams


def sample(split: Split, size: int, purpose: str) -> Split:
    """Return `size` rows of a split in their order, drawn without replacement; all if it has fewer."""
    streams = Streams(0, "sample")  # of no run: models of several seeds are compared on the same rows
    return split.only(split.drawn(streams(purpose), size).rows)
