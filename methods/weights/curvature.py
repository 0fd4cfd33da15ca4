"""Products of the loss's curvature with a vector, for which no matrix is ever formed.

A vector has shape (M,): one number for each of the M weights, in the order of `model.parameters()`. The
model is in evaluation mode, and everything is computed in float32, whatever the precision of training.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from data.split import Batch


@contextmanager
def differentiable() -> Iterator[None]:
    """Within the body, attention is its plain formula: fused kernels have no second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def fisher_product(model: nn.Module, batch: Batch, vector: Tensor) -> Tensor:
    """Return Σᵢ gᵢ(gᵢᵀv), (M,), over the rows of a batch, with gᵢ = ∂CE(xᵢ, yᵢ)/∂θ and v (M,).

    Divided by the number of rows, it is the product of their empirical Fisher information with v.
    """
    weights = list(model.parameters())
    with differentiable():
        losses = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
        # J (B, M) has the rows gᵢᵀ. Jᵀu is linear in u (B,), and its derivative along v is Jv (B,).
        u = torch.ones_like(losses, requires_grad=True)
        weighted = torch.autograd.grad(losses, weights, u, create_graph=True)
        (along,) = torch.autograd.grad(weighted, u, parts(weights, vector), retain_graph=True)
        # Jᵀ(Jv)
        total = torch.autograd.grad(losses, weights, along)
    return torch.cat([part.flatten() for part in total])


def parts(weights: list[nn.Parameter], vector: Tensor) -> list[Tensor]:
    """Split a vector (M,) into tensors of the weights' shapes, types and devices."""
    pieces = vector.split([weight.numel() for weight in weights])
    return [piece.view_as(weight).to(weight) for piece, weight in zip(pieces, weights, strict=True)]


def solved(
    product: Callable[[Tensor], Tensor], right: Tensor, rounds: int, tolerance: float
) -> tuple[Tensor, float]:
    """Solve A·x = `right` (M,) by conjugate gradients, for `product(v)` = A·v and A positive definite.

    Return x and its residual ‖right − A·x‖/‖right‖. The search ends after `rounds` products, or once
    the residual is at most `tolerance`. In exact arithmetic, A = λI + Σ of S outer products needs at
    most S + 1 rounds. scipy's solver is not used, because numpy's threads would decide its last bits.
    Reference: Hestenes & Stiefel 1952.
    """
    x, residual, direction = torch.zeros_like(right), right, right
    size = squared = right.dot(right)
    for _ in range(rounds):
        if squared <= tolerance**2 * size:
            break
        image = product(direction)
        # along the direction p the residual r is smallest at α = rᵀr / pᵀAp
        length = squared / direction.dot(image)
        x = x + length * direction
        residual = residual - length * image
        before, squared = squared, residual.dot(residual)
        # p ← r + (r'ᵀr' / rᵀr)·p is A-orthogonal to all directions before
        direction = residual + squared / before * direction
    return x, float((squared / size).sqrt()) if size else 0.0
