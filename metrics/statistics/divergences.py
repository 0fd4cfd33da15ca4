"""Divergences and distances of two predicted distributions, row by row.

Each takes log-probabilities (N, K) float64 of two models on the same rows and returns (N,) float64.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def jensen_shannon(ln_p: Tensor, ln_q: Tensor) -> Tensor:
    """Return JS(p, q) in nats: 0 for equal distributions, ln 2 for disjoint ones (Lin, 1991)."""
    # ln m = ln ½(p + q)
    ln_m = torch.logaddexp(ln_p, ln_q).sub_(math.log(2))
    # JS = ½ KL(p ‖ m) + ½ KL(q ‖ m)
    both = kullback_leibler(ln_p, ln_m) + kullback_leibler(ln_q, ln_m)
    # rounding may leave the bounds by 1e-16
    return (both / 2).clamp(0, math.log(2))


def kullback_leibler(ln_p: Tensor, ln_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) in nats, at least 0 and without an upper limit."""
    p = ln_p.exp()
    # KL(p ‖ q) = Σ_k p_k (ln p_k − ln q_k), with 0·ln 0 = 0 for logits of −∞
    divergence: Tensor = torch.linalg.vecdot(p, (ln_p - ln_q).masked_fill_(p == 0, 0))
    return divergence


def distance(ln_p: Tensor, ln_q: Tensor, order: int) -> Tensor:
    """Return ‖p − q‖ of the order: at most √2 for order 2, and 2 for order 1."""
    norm: Tensor = torch.linalg.vector_norm(ln_p.exp() - ln_q.exp(), ord=order, dim=1)
    return norm


def reversed_jensen_shannon(z: Tensor, w: Tensor) -> float:
    """Return the number that published code calls JS, of logits (N, K) of two models: (1/N) Σ
    ½[KL(m ‖ p) + KL(m ‖ q)] / K in float32.

    The divergences are the reverse of the definition's, and the mean is over classes too. Therefore it
    has no upper limit: one-hot p and q of different classes with a gap of a between logits give
    (a/2 − ln 2)/K. It is infinite where one probability underflows, and NaN where both do.
    """
    p, q = z.float().softmax(1), w.float().softmax(1)
    m = (p + q) / 2
    # F.kl_div(ln p, m) is m (ln m − ln p), elementwise; its default is the mean over rows and classes
    both = sum(functional.kl_div(one.log(), m, reduction="none").mean().item() for one in (p, q))
    return both / 2
