"""Shares: the halves of the rows to forget that shadow models are trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.row_file import content
from data.streams import Streams
from runner.store import Identity


@dataclass(frozen=True, eq=False)
class Share:
    """One shadow's share of the training set: all retained rows, and a half of the rows to forget.

    `forgotten` (F,) int64 holds the half that the shadow is trained on and then forgets. `left_out`
    (L,) int64 holds the other half, which it never sees. Both are ascending.
    """

    forgotten: Tensor
    left_out: Tensor

    def identity(self) -> Identity:
        """Identify the half that is left out of the data."""
        return {"left_out_sha256": content(self.left_out.numpy())}


def share_of(rows: Tensor, shadow: int) -> Share:
    """Return the share of a shadow by its number.

    Shadows 2i and 2i + 1 have complementary halves, drawn for i.
    """
    streams = Streams(0, "shadow").part(str(shadow // 2))
    order = torch.randperm(len(rows), generator=streams("half"))
    first, second = order[: len(rows) // 2], order[len(rows) // 2 :]
    if shadow % 2:
        first, second = second, first
    return Share(rows[first].sort().values, rows[second].sort().values)
