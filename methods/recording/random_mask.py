"""Random subsets of positions that need no stored indices."""

from enum import Enum

import torch
from torch import Tensor

from data.streams import Streams


class Mask(Enum):
    """`fresh`: another random subset for every update (or row); `fixed`: one for all."""

    fresh = "fresh"
    fixed = "fixed"


class RandomMask:
    """`kept` of `size` positions, anew for every number: a window of one random permutation, which
    begins at a random place. Each position is kept with probability kept / size.

    The same streams give the same positions; what was drawn when the record was made is compared by
    `proof`, since torch may come to draw otherwise.
    """

    def __init__(self, size: int, keep: float, mask: Mask, streams: Streams, purpose: str) -> None:
        self.kept = max(1, round(keep * size))
        order = torch.randperm(size, generator=streams(purpose))
        self._order = torch.cat([order, order[: self.kept]])  # windows wrap around
        self._size, self._mask = size, mask
        self._streams, self._purpose = streams, purpose

    def positions(self, number: int) -> Tensor:
        """(kept,) int64."""
        start = 0
        if self._mask is Mask.fresh:
            start = self._streams.number(f"{self._purpose}/{number}") % self._size
        return self._order[start : start + self.kept]

    def of_each(self, numbers: list[int], values: Tensor) -> Tensor:
        """(n, kept) of the values (n, size), each row by its number."""
        return torch.stack([row[self.positions(n)] for row, n in zip(values, numbers, strict=True)])

    @property
    def proof(self) -> list[int]:
        return self._order[:4].tolist()
