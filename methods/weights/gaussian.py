"""Weights as independent Gaussians: sampling them, Bayesian gradient descent, and their divergence.

q = N(μ, diag σ²), θ = μ + σ∘ε with ε ~ N(0, I); G = E[∂L/∂θ] and H = E[∂L/∂θ ∘ ε], L a sum over rows.
Everything is by parameter name; closed forms are those of METHODS.md A.8, not paper 001's, whose eq. 1
has a term inside the root that belongs outside, and whose ∂KL/∂μ has the wrong sign.
Reference: Zeno et al., Task Agnostic Continual Learning Using Online Variational Bayes, 2018.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.weights.importance import PIECE

Tensors = Mapping[str, Tensor]

# The smallest standard deviation a step may leave: 1/σ² and its products stay finite in float32.
FLOOR = 1e-12


def pieces(name: str, *parts: Tensors) -> Iterator[tuple[Tensor, ...]]:
    """Flat views of the same numbers of a name in all parts."""
    yield from zip(*(part[name].view(-1).split(PIECE) for part in parts), strict=True)


@dataclass(frozen=True)
class Gaussian:
    """A distribution of the weights: `mean` and `deviation` by parameter name."""

    mean: Tensors
    deviation: Tensors

    def copy(self) -> "Gaussian":
        both = (
            {name: value.clone() for name, value in part.items()} for part in (self.mean, self.deviation)
        )
        return Gaussian(*both)

    def move(self, step: Callable[..., tuple[Tensor, Tensor]], *others: Tensors) -> None:
        """Puts in the place of mean and deviation what `step` makes of them and of the same numbers of
        `others`, number by number; it is given some at a time."""
        for name in self.mean:
            for mean, deviation, *rest in pieces(name, self.mean, self.deviation, *others):
                moved = step(mean, deviation, *rest)
                mean.copy_(moved[0])
                deviation.copy_(moved[1])

    def put_mean(self, model: nn.Module) -> None:
        """Sets the model's weights to the mean."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.mean[name])


@dataclass(frozen=True)
class Moments:
    """G and H, estimated from samples, and the mean loss of these."""

    gradient: Tensors
    product: Tensors
    loss: Tensor

    def scale(self, weight: float) -> None:
        """Makes them the moments of the loss times `weight`; `loss` is still told as it is."""
        for value in (*self.gradient.values(), *self.product.values()):
            value.mul_(weight)


def moments(
    model: nn.Module, q: Gaussian, loss: Callable[[], Tensor], samples: int, rng: torch.Generator
) -> Moments:
    """G and H of `loss`, a scalar of the model's weights, from `samples` draws of them.

    `rng` is a CPU generator, so that every device sees the same draws. Leaves a sample's weights in
    the model.
    """
    parameters = dict(model.named_parameters())
    gradient = {name: torch.zeros_like(mean) for name, mean in q.mean.items()}
    product = {name: torch.zeros_like(mean) for name, mean in q.mean.items()}
    losses = []
    for _ in range(samples):
        noise = _sample(parameters, q, rng)
        value = loss()
        losses.append(value.detach())
        found = torch.autograd.grad(value, list(parameters.values()))
        for name, g in zip(parameters, found, strict=True):
            gradient[name].add_(g, alpha=1 / samples)
            product[name].addcmul_(g, noise[name], value=1 / samples)
    return Moments(gradient, product, torch.stack(losses).mean())


def _sample(parameters: Mapping[str, nn.Parameter], q: Gaussian, rng: torch.Generator) -> Tensors:
    """Draws the weights from q, in place; gives the noise ε they were drawn with."""
    noise = {
        name: torch.randn(parameter.shape, generator=rng).to(parameter.device)
        for name, parameter in parameters.items()
    }
    with torch.no_grad():
        for name, parameter in parameters.items():
            torch.addcmul(q.mean[name], q.deviation[name], noise[name], out=parameter)
    return noise


def descended_deviation(deviation: Tensor, product: Tensor) -> Tensor:
    """BGD's σ' = σ√(1 + (σH/2)²) − ½σ²H, which is above 0.

    For H > 0 that is a difference of near numbers; multiplied out it is a quotient without one.
    """
    half = deviation * product / 2
    root = torch.hypot(half, torch.ones_like(half))
    return deviation * torch.where(half > 0, 1 / (root + half), root - half)


def divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q‖p), summed over all weights; 0 if and only if they are equal."""
    total = torch.zeros((), dtype=torch.float64)
    for name in q.mean:
        both = pieces(name, q.mean, q.deviation, p.mean, p.deviation)
        for mean, deviation, around, held in both:
            squared = (deviation / held).square()
            moved = ((mean - around) / held).square()
            total = total.to(mean.device) + (moved + squared - 1 - squared.log()).sum() / 2
    return total


def pull(mean: Tensor, deviation: Tensor, around: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """∂KL(q‖p)/∂μ_q = (μ_q − μ_p)/σ_p² and ∂KL(q‖p)/∂σ_q = σ_q/σ_p² − 1/σ_q, for q = N(mean, deviation²)
    and p = N(around, held²)."""
    return (mean - around) / held.square(), deviation / held.square() - 1 / deviation
