"""The importance of each weight for some rows: diagonal Fisher information, and LFSSD's sensitivity.

A measure is a sum over rows (or batches) with their number, so that the measures of two parts add up.
Models are in evaluation mode (except for `training_fisher`), and images are not augmented. Per-sample
measures do not depend on the order of the rows or on the batch size, up to rounding.

The squared per-sample gradients come from the factors of `methods.weights.per_sample_gradients`. Sample
i has the gradient Gᵢ = Σₗ bᵢₗ ⊗ aᵢₗ over positions l, and the measure needs Σᵢ Gᵢ², squared number by
number:

- One position: one matrix product, Σᵢ bᵢ² ⊗ aᵢ².
- Few positions: one matrix product over pairs of positions, Σᵢ Σₗₘ (bᵢₗ∘bᵢₘ) ⊗ (aᵢₗ∘aᵢₘ).
- Many positions: form each Gᵢ and square it, a few samples at a time.

If a layer of the model has no rule, each row has its own backward pass. This is much slower, and a
warning says so.
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

# Logits (B, K) and labels (B,) to the loss of each row (B,).
RowLoss = Callable[[Tensor, Tensor], Tensor]

# The most numbers in memory at once for the squares of one layer; they fit a CPU's last-level cache.
CHUNK = 2**22

# The numbers of a parameter that a formula works on at once, to keep its intermediate results small.
PIECE = 2**18

# Up to this many pairs of positions, a product over pairs is faster than forming each gradient: it
# multiplies more numbers, but moves fewer through memory.
PAIRS = 45


@dataclass(frozen=True)
class Importance:
    """A measure of every weight: `sums` over `count` rows or batches, by parameter, in its shape."""

    sums: Mapping[str, Tensor]
    count: int

    def joined(self, other: "Importance") -> "Importance":
        """Return the measure of both parts together; the sums of this one are changed in place."""
        for name, value in self.sums.items():
            value += other.sums[name]
        return Importance(self.sums, self.count + other.count)

    def mean(self, name: str) -> Tensor:
        """Return the mean of one parameter per row or batch, or zeros if nothing was measured."""
        return self.sums[name] / max(1, self.count)

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the mean of one parameter in flat pieces of `PIECE` numbers.

        They are float64, because squared gradients come close to the smallest numbers of float32.
        """
        for piece in self.sums[name].flatten().split(PIECE):
            yield piece.double() / max(1, self.count)


# A function that measures a model over a split, in batches of the given number of rows.
Measure = Callable[[nn.Module, Split, int, Conditions], Importance]


def per_sample_fisher(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
    """Return the diagonal of the empirical Fisher information: Σ over rows of (∂CE(x, y)/∂θ)²."""
    return _squares(model, split, size, conditions, [_cross_entropy])


def expected_fisher(
    model: nn.Module, split: Split, size: int, conditions: Conditions, classes: int
) -> Importance:
    """Return the diagonal of the Fisher information: Σ over rows of Σ_y p(y|x)·(∂CE(x, y)/∂θ)².

    It does not depend on the labels. Each row takes one gradient per class.
    """
    return _squares(model, split, size, conditions, [_share_of(label) for label in range(classes)])


def batch_fisher(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
    """Return Σ over batches of (∂ mean CE/∂θ)², as in SSD's code. It shrinks as the batches grow."""
    return _over_batches(model.eval(), split, size, conditions, F.cross_entropy, torch.square)


def training_fisher(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
    """Return `batch_fisher` in training mode, in which dropout and batch statistics are active."""
    return _over_batches(model.train(), split, size, conditions, F.cross_entropy, torch.square)


def sensitivity(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
    """Return Σ over batches of |∂ mean ‖f(x)‖²/∂θ|, which needs no labels (LFSSD)."""
    return _over_batches(model.eval(), split, size, conditions, _squared_norm, torch.abs)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _share_of(label: int) -> RowLoss:
    """Return the loss √p·CE of a label y, with p = p(y|x) held fixed."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        # Its squared gradient is (√p·∂CE/∂θ)² = p·(∂CE/∂θ)², one term of the sum over y. CE = −log p.
        log_p = F.log_softmax(logits, 1)[:, label]
        return -(0.5 * log_p.detach()).exp() * log_p

    return loss


def _squared_norm(logits: Tensor, labels: Tensor) -> Tensor:
    # mean over rows of ‖f(x)‖², for logits (B, K)
    return logits.square().sum(1).mean()


def _over_batches(
    model: nn.Module,
    split: Split,
    size: int,
    conditions: Conditions,
    loss: Callable[[Tensor, Tensor], Tensor],
    measure: Callable[[Tensor], Tensor],
) -> Importance:
    """Return the sum over batches of `measure` of the gradient of the batch's `loss`."""
    parameters = dict(model.named_parameters())
    sums, count = _zeros(model), 0
    conditions.meter.progress.expect(len(split))
    for batch in conditions.meter.ordered_batches(split, size):
        with autocast(conditions.bf16, batch.images.device):
            value = loss(model(batch.images).float(), batch.labels)
        gradients = torch.autograd.grad(value, list(parameters.values()))
        for name, gradient in zip(parameters, gradients, strict=True):
            # g² or |g|, number by number
            sums[name] += measure(gradient)
        count += 1
    return Importance(sums, count)


def _squares(
    model: nn.Module, split: Split, size: int, conditions: Conditions, losses: list[RowLoss]
) -> Importance:
    """Return the sum over rows and losses of the squared gradient of each row's loss."""
    model.eval()
    sums, count = _zeros(model), 0
    conditions.meter.progress.expect(len(split))
    with _adder(model) as add:
        for batch in conditions.meter.ordered_batches(split, size, times=len(losses)):
            for loss in losses:
                add(sums, batch.images, batch.labels, loss, conditions.bf16)
            count += len(batch.rows)
    return Importance(sums, count)


# A function that adds the squared per-sample gradients of a batch to sums by parameter name. It takes
# the sums, images (B, C, H, W), labels (B,), the loss, and true for bfloat16 autocast.
Add = Callable[[dict[str, Tensor], Tensor, Tensor, RowLoss, bool], None]


@contextmanager
def _adder(model: nn.Module) -> Iterator[Add]:
    """Provide the `Add` of the model: by factors if every layer has a rule, or else row by row."""
    try:
        layers_of(model)
    except UserError:
        logging.getLogger(__name__).warning(
            "a layer of this model has no rule for per-sample gradients: rows go one by one, slowly"
        )
        yield _row_by_row(model)
        return
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with Capture(model) as capture:
        model.requires_grad_(False)  # backward then computes no weight gradients, which are not read
        try:
            yield _by_factors(model, capture)
        finally:
            for parameter, required in wanted:
                parameter.requires_grad_(required)


def _by_factors(model: nn.Module, capture: Capture) -> Add:
    def add(sums: dict[str, Tensor], images: Tensor, labels: Tensor, loss: RowLoss, bf16: bool) -> None:
        images = images.detach().requires_grad_()  # makes gradients flow through every frozen layer
        with autocast(bf16, images.device):
            # The sum over rows, not the mean: sample i's factors then have no 1/B.
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
                # Σᵢ Gᵢ², one row at a time
                sums[name] += gradient.square()

    return add


def squares_of_layer(layer: nn.Module, uses: list[Factors]) -> dict[str, Tensor]:
    """Return Σᵢ Gᵢ² of one layer, by its own parameter names.

    `uses` are the factors of each use of the layer; Gᵢ sums over the uses before it is squared.
    """
    rule = RULES[type(layer)]
    whole = [Factors(use.a.float(), use.b.float()) for use in uses]  # autocast mixes two dtypes
    if rule.matrices is None or len(whole) != 1:
        # Gᵢ = Σ over uses of the layer, then Σᵢ Gᵢ²: (B, *shape) to the parameter's shape
        each = [rule.each(layer, use) for use in whole]
        return {name: sum(part[name] for part in each).square().sum(0) for name in each[0]}  # type: ignore[union-attr]
    b, a = rule.matrices(layer, whole[0])
    found = {"weight": _squared_products(b, a).reshape(layer.weight.shape)}  # type: ignore[arg-type]
    if layer.bias is not None:
        found["bias"] = b.sum(3).square().sum(0).flatten()  # Σᵢ (Σₗ bᵢₗ)²
    return found


def _squared_products(b: Tensor, a: Tensor) -> Tensor:
    """Return Σₙ (Σₗ b[n, g, o, l]·a[n, g, i, l])² (G, O, I), for b (N, G, O, L) and a (N, G, I, L)."""
    (_, groups, outputs, positions), inputs = b.shape, a.shape[2]
    pairs = positions * (positions + 1) // 2
    few = pairs <= PAIRS
    # Numbers in memory per sample: both operands of the product over pairs, or one gradient.
    numbers = groups * (pairs * (outputs + inputs) if few else outputs * inputs)
    rows = max(1, CHUNK // numbers)
    square = _by_pairs if few else _one_by_one
    parts = zip(b.split(rows), a.split(rows), strict=True)
    total = square(*next(parts))
    for part in parts:
        total += square(*part)
    return total


def _by_pairs(b: Tensor, a: Tensor) -> Tensor:
    """Return the sum of squares as a sum over pairs of positions l ≤ m."""
    # (Σₗ bₗaₗ)² = Σ_{l≤m} c·(bₗbₘ)(aₗaₘ) with c = 1 for l = m, or 2 for the pairs (l, m) and (m, l)
    first, second = torch.triu_indices(b.shape[3], b.shape[3], device=b.device)
    twice = torch.where(first == second, 1.0, 2.0).to(b.device)
    left = (b[..., first] * b[..., second] * twice).permute(1, 2, 0, 3).flatten(2)
    right = (a[..., first] * a[..., second]).permute(1, 0, 3, 2).flatten(1, 2)
    return left @ right  # (G, O, N·pairs) @ (G, N·pairs, I)


def _one_by_one(b: Tensor, a: Tensor) -> Tensor:
    """Return the sum of squares by forming every sample's gradient, (N, G, O, I)."""
    return (b @ a.transpose(2, 3)).square_().sum(0)


def _zeros(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(parameter, requires_grad=False)
        for name, parameter in model.named_parameters()
    }


def ratio_bound(forget: int, everything: int, size: int | None) -> float:
    """Return the largest possible ratio I_f/I_D of a weight's mean importance to D_f and to all rows D.

    `forget` and `everything` count rows, and all rows include those to forget. `size` is None for a mean
    over rows, or the batch size for a mean over batches; rows to forget have their own batches.
    """
    # I_all = (n_f·I_f + n_r·I_r)/n ≥ I_f·n_f/n, so that I_f/I_all ≤ n/n_f for n = n_f + n_r.
    if size is None:
        return everything / forget
    own = math.ceil(forget / size)
    return (own + math.ceil((everything - forget) / size)) / own
