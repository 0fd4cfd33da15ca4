"""Random subsets of positions that are redrawn when a record is read, instead of stored."""

from enum import Enum

import torch
from torch import Tensor

from data.streams import Streams


class Mask(Enum):
    """`fresh` draws another random subset for every update (or row), `fixed` one for all."""

    fresh = "fresh"
    fixed = "fixed"


class RandomMask:
    """Chooses `kept` of `size` positions for each number of an update or row.

    They are a window of one random permutation, which begins at a random place. Each position is kept
    with probability kept / size. The same streams give the same positions. A record stores `proof`, the
    beginning of the permutation, because a later version of torch may draw another one.
    """

    def __init__(self, size: int, keep: float, mask: Mask, streams: Streams, purpose: str) -> None:
        self.kept = max(1, round(keep * size))
        order = torch.randperm(size, generator=streams(purpose))
        self._order = torch.cat([order, order[: self.kept]])  # windows wrap around
        self._size, self._mask = size, mask
        self._streams, self._purpose = streams, purpose

    def positions(self, number: int) -> Tensor:
        """Return the positions (kept,) int64 that are kept of the update or row with this number."""
        start = 0
        if self._mask is Mask.fresh:
            # The start depends only on the number, so that a reader draws the same one.
            start = self._streams.number(f"{self._purpose}/{number}") % self._size
        return self._order[start : start + self.kept]

    def of_each(self, numbers: list[int], values: Tensor) -> Tensor:
        """Return the kept part (n, kept) of values (n, size), whose lines have these numbers."""
        self._order = self._order.to(values.device)  # once: moving it for every line would take long
        return torch.stack([line[self.positions(n)] for line, n in zip(values, numbers, strict=True)])

    @property
    def proof(self) -> list[int]:
        """The first positions of the permutation."""
        return self._order[:4].tolist()
