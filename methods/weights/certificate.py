"""Gaussian noise on the weights, and the (ε, δ) that it proves.

An algorithm is (ε, δ)-unlearning if its result hardly differs in distribution from one without the
forgotten rows: P(unlearned ∈ O) ≤ e^ε·P(retrained ∈ O) + δ for every set O of weights, and the same with
the two exchanged. If both are within a distance Δ of each other before each receives noise N(0, σ²I),
then with μ = Δ/σ this holds for

    δ(ε) = Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ)

and for no smaller δ. Φ is the standard normal distribution function (Balle & Wang 2018, theorem 8).
The proofs are of real numbers and true randomness. They do not cover the rounding of floating-point
numbers, nor the pseudo-random generator, whose seed must stay secret.
Reference: Balle & Wang, Improving the Gaussian Mechanism for Differential Privacy, ICML 2018.
"""

import logging
import math

import torch
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr
from torch import nn

from data.bounds import Bounds
from methods.training.loop import Log

# The values that `certify` logs.
CERTIFICATE = ("epsilon", "delta", "noise")

# The ends of the search for μ = Δ/σ. At the lower one the noise is a million times the distance.
LEAST, MOST = 1e-6, 1e6

# From this ε on, μ lies between these ends for every δ, and rounding leaves digits of δ(ε).
EPSILON = Bounds(1e-4, 1e6)


def delta_of(epsilon: float, mu: float) -> float:
    """Return the smallest δ that noise of the deviation Δ/`mu` proves at this ε."""
    # Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ), with the product as exp(ε + log Φ): e^ε alone may overflow
    return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)))


def deviation_for(epsilon: float, delta: float, distance: float) -> float:
    """Return the smallest σ that proves (ε, δ) for two results within a `distance` of each other."""
    # δ rises with μ; the largest μ with δ(μ) ≤ delta gives the smallest σ = Δ/μ
    mu: float = brentq(lambda mu: delta_of(epsilon, mu) - delta, LEAST, MOST, xtol=1e-12, rtol=1e-12)
    mu *= 1 - 1e-9  # the root may be too large by its tolerance,
    while delta_of(epsilon, mu) > delta:  # which is a larger part of a small root
        mu *= 1 - 1e-6
    return distance / mu


@torch.no_grad()
def add_noise(model: nn.Module, deviation: float, rng: torch.Generator) -> None:
    """Add N(0, deviation²) to every parameter. `rng` is a CPU generator: every device draws the same."""
    if deviation == 0:
        return
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=rng).to(parameter.device)
        parameter.add_(noise, alpha=deviation)


def certify(epsilon: float, delta: float, deviation: float, claim: str, log: Log) -> None:
    """Log ε, δ and the deviation of the noise, and print them with what they say and assume.

    `claim` continues the sentence after the numbers.
    """
    log(dict(zip(CERTIFICATE, (epsilon, delta, deviation), strict=True)))
    logging.getLogger(__name__).warning(
        "certificate: (ε=%.4g, δ=%.4g)-unlearning by noise of σ=%.4g, %s",
        epsilon,
        delta,
        deviation,
        claim,
    )
