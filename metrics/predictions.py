"""The logits of one model on every part of the data, computed once and scored by every metric."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from data.split import Split
from models.precision import autocast

T = TypeVar("T")

# The parts of the data, in the order of a table.
PARTS = ("train_forget", "train_retain", "test_forget", "test_retain", "test")
FORGET_PARTS = ("train_forget", "test_forget")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits (N, K) float32 and true labels (N,) int64, by part.

    The parts are `train` and `test`, the whole sets, and those of `PARTS` that have rows. Without
    predicted training rows, no part begins with `train`. `classes` is K. `target` is the new class of
    the forgotten rows in a request to relabel, else None. `gone` are the classes of which no row is
    retained.
    """

    logits: Mapping[str, Tensor] = field(repr=False)
    labels: Mapping[str, Tensor] = field(repr=False)
    classes: int
    target: int | None = None
    gone: frozenset[int] = frozenset()
    _computed: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def heldout(self) -> str:
        """The part of test rows of the same kind as the forgotten ones: `test_forget` if the request
        names classes, else `test`."""
        return "test_forget" if "test_forget" in self.logits else "test"

    def right(self, part: str) -> Tensor:
        """Return 1[argmax_k z_k = y], (N,) bool. Of equal logits, the first counts."""
        return self.logits[part].argmax(1) == self.labels[part]

    def accuracy(self, part: str) -> float:
        """Return the share of a part's rows that are classified correctly, in float64."""
        return self.right(part).double().mean().item()

    def logprobs(self, part: str) -> Tensor:
        """Return ln softmax(z), (N, K) float64, computed once."""
        return self.once(f"logprobs {part}", lambda: self.logits[part].double().log_softmax(1))

    def own_logprobs(self, part: str) -> Tensor:
        """Return ln p_y, the log-probability of the label, (N,) float64: minus the cross-entropy."""
        labels = self.labels[part]
        return self.once(
            f"own {part}", lambda: self.logprobs(part).gather(1, labels[:, None]).squeeze(1)
        )

    def margins(self, part: str) -> Tensor:
        """Return φ = z_y − logsumexp_{j≠y} z_j, (N,) float64, computed once.

        It equals ln p_y − ln(1 − p_y), and does not saturate where p_y is near 1.
        """
        return self.once(f"margins {part}", lambda: margins(self.logits[part], self.labels[part]))

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return what `compute` returned at its first call under this name: several metrics need it."""
        if name not in self._computed:
            self._computed[name] = compute()
        found: T = self._computed[name]
        return found


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return φ (N,) float64 of logits (N, K) and labels (N,) (see `Predictions.margins`)."""
    z = logits.double()
    own = z.gather(1, labels[:, None])
    # logsumexp over the other classes: the label's own logit counts as −∞
    others = z.scatter(1, labels[:, None], -torch.inf)
    return own.squeeze(1) - others.logsumexp(1)


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    batch_size: int,
    bf16: bool,
    advance: Callable[[int], None] = lambda rows: None,
) -> Tensor:
    """Return the logits (N, K) float32 of all rows in their order, on the CPU.

    The model is put into evaluation mode, and images are not augmented. `advance` is called with the
    number of rows after each batch.
    """
    model.eval()
    logits = []
    for batch in split.batches(batch_size):
        with autocast(bf16, batch.images.device):
            # (B, K); float32 also under autocast, because metrics need the digits
            logits.append(model(batch.images).float())
        advance(len(batch.rows))
    return torch.cat(logits).cpu()


def by_part(
    splits: Mapping[str, Sequence[Tensor]], forget: Mapping[str, Tensor], target: int | None
) -> Predictions:
    """Return the predictions of whole splits, cut into the rows to forget and to retain.

    `splits` holds `(logits, labels, rows)` by name of the split, and must hold `test`. `forget` holds
    the rows to forget by name of the split.
    """
    logits, labels = {}, {}
    for name, split in splits.items():
        # (N,): true for the rows to forget
        gone = torch.isin(split[2], forget[name])
        for part, mask in (("forget", gone), ("retain", ~gone)):
            if mask.any():
                logits[f"{name}_{part}"] = split[0][mask]
                labels[f"{name}_{part}"] = split[1][mask]
        logits[name], labels[name] = split[0], split[1]
    classes = splits["test"][0].shape[1]
    return Predictions(logits, labels, classes, target, _gone(labels, classes))


def _gone(labels: Mapping[str, Tensor], classes: int) -> frozenset[int]:
    """Return the classes of which no row is retained; none is known without the training rows."""
    if "train_retain" not in labels:
        return frozenset()
    return frozenset(range(classes)) - set(labels["train_retain"].unique().tolist())
