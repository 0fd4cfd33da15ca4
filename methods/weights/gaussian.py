"""Independent Gaussians over the weights: sampling, Bayesian gradient descent (BGD), and divergence.

The distribution is q = N(μ, diag σ²), and a sample is θ = μ + σ∘ε with ε ~ N(0, I). For a loss L, a sum
over rows, BGD uses the moments G = E[∂L/∂θ] and H = E[∂L/∂θ ∘ ε]. Tensors are mappings by parameter
name. The closed forms here differ from paper 001's in two places: its eq. 1 has a term inside the root
that belongs outside, and its ∂KL/∂μ has the wrong sign.
Reference: Zeno et al., Task Agnostic Continual Learning Using Online Variational Bayes, 2018.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.weights.importance import PIECE

Tensors = Mapping[str, Tensor]

# The smallest standard deviation after a step: at 1e-12, 1/σ² and its products are finite in float32.
FLOOR = 1e-12


def pieces(name: str, *parts: Tensors) -> Iterator[tuple[Tensor, ...]]:
    """Yield flat views of the parameter `name`, one from each part, `PIECE` numbers at a time."""
    yield from zip(*(part[name].view(-1).split(PIECE) for part in parts), strict=True)


@dataclass(frozen=True)
class Gaussian:
    """A distribution of the weights: `mean` μ and `deviation` σ by parameter name."""

    mean: Tensors
    deviation: Tensors

    def copy(self) -> "Gaussian":
        """Return a copy that shares no memory with this one."""
        both = (
            {name: value.clone() for name, value in part.items()} for part in (self.mean, self.deviation)
        )
        return Gaussian(*both)

    def move(self, step: Callable[..., tuple[Tensor, Tensor]], *others: Tensors) -> None:
        """Replace mean and deviation, in place, by `step(mean, deviation, *others)`.

        `step` works number by number. It receives flat pieces of the same coordinates of all tensors,
        and returns the new mean and deviation.
        """
        for name in self.mean:
            for mean, deviation, *rest in pieces(name, self.mean, self.deviation, *others):
                # μ' and σ' of one piece, (PIECE,)
                moved = step(mean, deviation, *rest)
                mean.copy_(moved[0])
                deviation.copy_(moved[1])

    def put_mean(self, model: nn.Module) -> None:
        """Set the model's weights to the mean."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.mean[name])


@dataclass(frozen=True)
class Moments:
    """Estimates from samples of the weights: `gradient` G, `product` H, and the mean `loss`."""

    gradient: Tensors
    product: Tensors
    loss: Tensor

    def scale(self, weight: float) -> None:
        """Multiply G and H by `weight`, in place; `loss` keeps its value."""
        for value in (*self.gradient.values(), *self.product.values()):
            value.mul_(weight)


def moments(
    model: nn.Module, q: Gaussian, loss: Callable[[], Tensor], samples: int, rng: torch.Generator
) -> Moments:
    """Estimate G and H of `loss`, a scalar of the model's weights, from `samples` draws of them.

    `rng` is a CPU generator, so that the draws are the same on every device. The model is left with the
    weights of the last sample.
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
        # G = 1/S Σₛ gₛ and H = 1/S Σₛ gₛ∘εₛ, with gₛ = ∂L/∂θ at θₛ = μ + σ∘εₛ
        for name, g in zip(parameters, found, strict=True):
            gradient[name].add_(g, alpha=1 / samples)
            product[name].addcmul_(g, noise[name], value=1 / samples)
    return Moments(gradient, product, torch.stack(losses).mean())


def _sample(parameters: Mapping[str, nn.Parameter], q: Gaussian, rng: torch.Generator) -> Tensors:
    """Set the parameters to a sample θ = μ + σ∘ε, and return its noise ε."""
    noise = {
        name: torch.randn(parameter.shape, generator=rng).to(parameter.device)
        for name, parameter in parameters.items()
    }
    with torch.no_grad():
        for name, parameter in parameters.items():
            # θ = μ + σ∘ε
            torch.addcmul(q.mean[name], q.deviation[name], noise[name], out=parameter)
    return noise


def descended_deviation(deviation: Tensor, product: Tensor) -> Tensor:
    """Return BGD's σ' = σ√(1 + (σH/2)²) − ½σ²H, which is positive, for `product` H."""
    # With h = σH/2 this is σ(√(1 + h²) − h). For large h > 0 the difference cancels, so it is
    # computed as 1/(√(1 + h²) + h), which is equal.
    half = deviation * product / 2
    root = torch.hypot(half, torch.ones_like(half))
    return deviation * torch.where(half > 0, 1 / (root + half), root - half)


def divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """Return KL(q‖p) in nats, a float64 scalar summed over all weights; 0 if and only if q = p."""
    total = torch.zeros((), dtype=torch.float64)
    for name in q.mean:
        both = pieces(name, q.mean, q.deviation, p.mean, p.deviation)
        # KL = ½ Σ ((μ_q − μ_p)²/σ_p² + σ_q²/σ_p² − 1 − ln(σ_q²/σ_p²))
        for mean, deviation, around, held in both:
            squared = (deviation / held).square()  # σ_q²/σ_p²
            moved = ((mean - around) / held).square()  # (μ_q − μ_p)²/σ_p²
            total = total.to(mean.device) + (moved + squared - 1 - squared.log()).sum() / 2
    return total


def pull(mean: Tensor, deviation: Tensor, around: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Return ∂KL(q‖p)/∂μ_q and ∂KL(q‖p)/∂σ_q for q = N(mean, deviation²) and p = N(around, held²)."""
    # (μ_q − μ_p)/σ_p² and σ_q/σ_p² − 1/σ_q
    return (mean - around) / held.square(), deviation / held.square() - 1 / deviation
