"""The index of a record: the row and the step of every entry."""

import torch
from torch import Tensor

from data.split import Split
from methods.training.checkpoint import State


class EntryIndex:
    """Finds the tracked rows of each batch, and collects the row, the step and the scales of every
    entry, if the record has `factors`: sums have no entries. `tracked` (T,) are row numbers in ascending
    order, `groups` (T,) their groups, if any."""

    def __init__(self, split: Split, tracked: Tensor, groups: Tensor | None, factors: bool) -> None:
        self.tracked = tracked
        self.factors = factors
        self._all = len(tracked) == len(split)
        # (T,): groups may have any numbers; slots count from 0 without gaps
        self.slots = None if groups is None else groups.unique(return_inverse=True)[1]
        self.count = 0  # entries so far
        self._rows: list[Tensor] = []
        self._steps: list[Tensor] = []
        self._scales: list[Tensor] = []

    @property
    def slot_count(self) -> int:
        """Slots of the file of sums: one per tracked row, or one per group."""
        return len(self.tracked) if self.slots is None else int(self.slots.max()) + 1

    def where(self, rows: Tensor) -> slice | Tensor:
        """Return the positions of the tracked rows in a batch."""
        return slice(None) if self._all else torch.isin(rows, self.tracked).nonzero()[:, 0]

    def add(self, rows: Tensor, step: int) -> Tensor:
        """Note that a step has these tracked rows (n,); return their slots (n,)."""
        if self.factors:
            self.count += len(rows)
            self._rows.append(rows.cpu())
            self._steps.append(torch.full((len(rows),), step))
        # `tracked` ascends, so the position of a row in it is found by binary search
        slots = torch.searchsorted(self.tracked, rows).cpu()
        return slots if self.slots is None else self.slots[slots]

    def add_scales(self, scales: Tensor | None) -> None:
        """Note the scales (n, factors) of the entries added last."""
        if scales is not None:
            self._scales.append(scales)

    def state_dict(self) -> State:
        return {name: value for name, value in self.tensors().items() if name != "slots"}

    def load_state_dict(self, state: State) -> None:
        self._rows, self._steps = [state["rows"]], [state["steps"]]
        self.count = len(state["rows"])
        self._scales = [state["scales"]] if "scales" in state else []

    def tensors(self) -> dict[str, Tensor]:
        """Return the index as tensors to be stored, by name."""
        none = torch.empty(0, dtype=torch.int64)
        return {
            **({} if self.slots is None else {"slots": self.slots}),
            **({"scales": torch.cat(self._scales)} if self._scales else {}),
            "rows": torch.cat(self._rows) if self._rows else none,
            "steps": torch.cat(self._steps) if self._steps else none,
        }
