"""How much each weight matters to some rows: diagonal Fisher information and label-free sensitivity.

Every measure is a sum over rows (or batches) with its count, in evaluation mode and without
augmentation, so that the measure of two parts together is the sum of theirs. What is per sample does
not depend on the order of the rows or on the batch size, up to rounding.

Per-sample squares come from the factors of `methods.factors`, Σᵢ Gᵢ² with Gᵢ = Σₗ bᵢₗ ⊗ aᵢₗ: for one
position l they are Σᵢ bᵢ² ⊗ aᵢ², an ordinary product; for few, the sum over pairs of positions Σₗₘ
(bₗ∘bₘ) ⊗ (aₗ∘aₘ) is one too; for many, each Gᵢ is made and squared, a few at a time. A model with a
layer that has no rule goes row by row, which is much slower; a warning says so.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import UserError
from data.split import Split
from methods.training.loop import Conditions
from methods.weights.per_sample_gradients import RULES, Capture, Factors, layers_of
from models.precision import autocast

# From logits (B, K) and labels (B,) to the loss of each row, (B,).
RowLoss = Callable[[Tensor, Tensor], Tensor]

# Numbers that may be in memory at once for one layer's squares: a CPU's last-level cache.
CHUNK = 2**22

# Numbers of a parameter that formulas work on at once: their intermediate results are no copies of it.
PIECE = 2**18

# Up to this many pairs of positions a product over pairs is cheaper than making each gradient: it
# multiplies more and moves less.
PAIRS = 45


@dataclass(frozen=True)
class Importance:
    """`sums` by parameter name, shaped as the parameters, over `count` rows or batches."""

    sums: Mapping[str, Tensor]
    count: int

    def joined(self, other: "Importance") -> "Importance":
        """Of both parts; the other's sums are added to these, which it takes over."""
        for name, value in self.sums.items():
            value += other.sums[name]
        return Importance(self.sums, self.count + other.count)

    def mean(self, name: str) -> Tensor:
        """Of one parameter, per row or batch. Zero where nothing was measured."""
        return self.sums[name] / max(1, self.count)

    def pieces(self, name: str) -> Iterator[Tensor]:
        """The mean of one parameter, flat, some numbers after the others, in float64: squares come close
        to float32's smallest numbers."""
        for piece in self.sums[name].flatten().split(PIECE):
            yield piece.double() / max(1, self.count)


# Of a model, over a split, in batches of so many rows.
Measure = Callable[[nn.Module, Split, int, Conditions], Importance]


def per_sample_fisher(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
    """Σ over rows of (∂CE(x, y)/∂θ)²: the empirical Fisher information's diagonal."""
    return _squares(model, split, size, conditions, [_cross_entropy])


def expected_fisher(
    model: nn.Module, split: Split, size: int, conditions: Conditions, classes: int
) -> Importance:
    """Σ over rows of Σ_y p(y|x)·(∂CE(x, y)/∂θ)²: the Fisher information's diagonal, whatever the labels.
    Takes one gradient per class of each row."""
    return _squares(model, split, size, conditions, [_share_of(label) for label in range(classes)])


def batch_fisher(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
    """Σ over batches of (∂ mean CE/∂θ)², as SSD's code has it: it shrinks as the batches grow."""
    return _over_batches(model.eval(), split, size, conditions, F.cross_entropy, torch.square)


def training_fisher(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
    """Return `batch_fisher` in training mode: batch norms use each batch's statistics, and move their
    running averages."""
    return _over_batches(model.train(), split, size, conditions, F.cross_entropy, torch.square)


def sensitivity(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
    """Σ over batches of |∂ mean‖f(x)‖²/∂θ|, which asks for no labels (LFSSD)."""
    return _over_batches(model.eval(), split, size, conditions, _squared_norm, torch.abs)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _share_of(label: int) -> RowLoss:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """√p·CE, whose squared gradient is p·(∂CE)²; p is held fixed."""
        log_p = F.log_softmax(logits, 1)[:, label]
        return -(0.5 * log_p.detach()).exp() * log_p

    return loss


def _squared_norm(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.square().sum(1).mean()


def _over_batches(
    model: nn.Module,
    split: Split,
    size: int,
    conditions: Conditions,
    loss: Callable[[Tensor, Tensor], Tensor],
    measure: Callable[[Tensor], Tensor],
) -> Importance:
    parameters = dict(model.named_parameters())
    sums, count = _zeros(model), 0
    conditions.meter.progress.expect(len(split))
    for batch in conditions.meter.ordered_batches(split, size):
        with autocast(conditions.bf16, batch.images.device):
            value = loss(model(batch.images).float(), batch.labels)
        gradients = torch.autograd.grad(value, list(parameters.values()))
        for name, gradient in zip(parameters, gradients, strict=True):
            sums[name] += measure(gradient)
        count += 1
    return Importance(sums, count)


def _squares(
    model: nn.Module, split: Split, size: int, conditions: Conditions, losses: list[RowLoss]
) -> Importance:
    model.eval()
    sums, count = _zeros(model), 0
    conditions.meter.progress.expect(len(split))
    with _adder(model) as add:
        for batch in conditions.meter.ordered_batches(split, size, times=len(losses)):
            for loss in losses:
                add(sums, batch.images, batch.labels, loss, conditions.bf16)
            count += len(batch.rows)
    return Importance(sums, count)


Add = Callable[[dict[str, Tensor], Tensor, Tensor, RowLoss, bool], None]


@contextmanager
def _adder(model: nn.Module) -> Iterator[Add]:
    """What adds the squared gradients of a batch to sums: by factors where every layer has them."""
    try:
        layers_of(model)
    except UserError:
        logging.getLogger(__name__).warning(
            "a layer of this model has no rule for per-sample gradients: its rows go one by one, slowly"
        )
        yield _row_by_row(model)
        return
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with Capture(model) as capture:
        model.requires_grad_(False)  # backward then leaves out the weight gradients that nobody reads
        try:
            yield _by_factors(model, capture)
        finally:
            for parameter, required in wanted:
                parameter.requires_grad_(required)


def _by_factors(model: nn.Module, capture: Capture) -> Add:
    def add(sums: dict[str, Tensor], images: Tensor, labels: Tensor, loss: RowLoss, bf16: bool) -> None:
        images = images.detach().requires_grad_()  # so that a gradient flows through every layer
        with autocast(bf16, images.device):
            total = loss(model(images).float(), labels).sum()
        torch.autograd.grad(total, images)
        for name, uses in capture.take().items():
            prefix = f"{name}." if name else ""
            for own, value in squares_of_layer(capture.layers[name], uses).items():
                sums[prefix + own] += value

    return add


def _row_by_row(model: nn.Module) -> Add:
    parameters = dict(model.named_parameters())

    def add(sums: dict[str, Tensor], images: Tensor, labels: Tensor, loss: RowLoss, bf16: bool) -> None:
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            with autocast(bf16, images.device):
                (value,) = loss(model(image).float(), label)
            gradients = torch.autograd.grad(value, list(parameters.values()))
            for name, gradient in zip(parameters, gradients, strict=True):
                sums[name] += gradient.square()

    return add


def squares_of_layer(layer: nn.Module, uses: list[Factors]) -> dict[str, Tensor]:
    """Σ over samples of each sample's squared gradient, by the layer's own parameter names. A layer that
    is used several times has the sum over its uses squared."""
    rule = RULES[type(layer)]
    whole = [Factors(use.a.float(), use.b.float()) for use in uses]  # mixed precision leaves two types
    if rule.matrices is None or len(whole) != 1:
        each = [rule.each(layer, use) for use in whole]
        return {name: sum(part[name] for part in each).square().sum(0) for name in each[0]}  # type: ignore[union-attr]
    b, a = rule.matrices(layer, whole[0])
    found = {"weight": _squared_products(b, a).reshape(layer.weight.shape)}  # type: ignore[arg-type]
    if layer.bias is not None:
        found["bias"] = b.sum(3).square().sum(0).flatten()
    return found


def _squared_products(b: Tensor, a: Tensor) -> Tensor:
    """(G, O, I) = Σₙ (Σₗ b[n, g, o, l]·a[n, g, i, l])², for b (N, G, O, L) and a (N, G, I, L)."""
    (_, groups, outputs, positions), inputs = b.shape, a.shape[2]
    pairs = positions * (positions + 1) // 2
    few = pairs <= PAIRS
    numbers = groups * (pairs * (outputs + inputs) if few else outputs * inputs)
    rows = max(1, CHUNK // numbers)
    square = _by_pairs if few else _one_by_one
    parts = zip(b.split(rows), a.split(rows), strict=True)
    total = square(*next(parts))
    for part in parts:
        total += square(*part)
    return total


def _by_pairs(b: Tensor, a: Tensor) -> Tensor:
    """The square as a sum over pairs of positions; a pair of two stands for its mirror image, too."""
    first, second = torch.triu_indices(b.shape[3], b.shape[3], device=b.device)
    twice = torch.where(first == second, 1.0, 2.0).to(b.device)
    left = (b[..., first] * b[..., second] * twice).permute(1, 2, 0, 3).flatten(2)
    right = (a[..., first] * a[..., second]).permute(1, 0, 3, 2).flatten(1, 2)
    return left @ right


def _one_by_one(b: Tensor, a: Tensor) -> Tensor:
    return (b @ a.transpose(2, 3)).square_().sum(0)


def _zeros(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(parameter, requires_grad=False)
        for name, parameter in model.named_parameters()
    }


def ratio_bound(forget: int, everything: int, size: int | None) -> float:
    """The most that a weight's importance to the part to forget can exceed its importance to everything,
    as everything holds that part: in rows, or in batches of `size` rows."""
    if size is None:
        return everything / forget
    own = math.ceil(forget / size)
    return (own + math.ceil((everything - forget) / size)) / own
