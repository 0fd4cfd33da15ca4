"""Divergence: losses and weights that became NaN or infinite."""

import torch
from torch import Tensor, nn

from data.errors import UserError
from methods.training.checkpoint import State

# Steps between two checks of the losses. A check makes the CPU wait for the GPU, so one at every step
# would be slow.
CHECK_EVERY = 32


class Diverged(UserError):
    """The loss or the weights became NaN or infinite."""


class Losses:
    """The losses of the latest steps, which are checked some at a time.

    As a part of a training's state it holds nothing: a loss that is no number ends the training instead.
    """

    def __init__(self) -> None:
        self._unchecked: list[Tensor] = []
        self._epoch = self._last = 0

    def add(self, loss: Tensor, epoch: int, step: int) -> None:
        """Note the loss of a step, and check all if they are many. Raise Diverged as `check`."""
        self._unchecked.append(loss)
        self._epoch, self._last = epoch, step
        if len(self._unchecked) == CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Raise Diverged for the first loss that is not finite, and forget the losses otherwise."""
        losses, self._unchecked = self._unchecked, []
        bad = (~torch.stack(losses).isfinite()).nonzero() if losses else torch.empty(0)
        if len(bad):
            index = int(bad[0])
            raise Diverged(
                f"the loss became {losses[index].item()} in epoch {self._epoch + 1}, at step "
                f"{self._last - len(losses) + 2 + index}: lower the learning rate, or bound the "
                "gradient with clip"
            )

    def state_dict(self) -> State:
        self.check()
        return {}

    def load_state_dict(self, state: State) -> None:
        """There is nothing to load."""


def require_finite(model: nn.Module) -> None:
    """Raise Diverged if a weight is NaN or infinite. No loss follows the last update to show it."""
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise Diverged(f"{name} is no longer finite: lower the learning rate, or set clip")
