"""Per-sample gradients of a batch, from the tensors that an ordinary backward pass computes.

If the weight gradient of a layer is a sum of outer products, sample i has the gradient

    Gᵢ = Σₗ bᵢₗ ⊗ aᵢₗ

over positions l, with `a` the layer's input and `b` the gradient of the loss at its output. Keeping the
factors aᵢ and bᵢ in place of Gᵢ loses nothing. It takes much less memory if the weight is large and the
feature map is small. If the loss is a mean over the batch, `b` contains the factor 1/B.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from data.errors import UserError
from methods.weights.layers import refuse_batch_norm
from models.vit import ClassToken, Positions


@dataclass(frozen=True)
class Factors:
    """The factors of one use of a layer in a batch.

    `a` (B, …) is the layer's input, and `b` (B, …) the gradient of the loss at its output.
    """

    a: Tensor
    b: Tensor


Gradients = dict[str, Tensor]  # by the layer's own parameter names


@dataclass(frozen=True)
class Rule:
    """The conversion from factors to parameter gradients for one type of layer.

    `each` returns the gradient of every sample, (B, *shape). `total` returns their sum, at the cost of
    one ordinary weight gradient. `matrices` returns b (B, G, O, L) and a (B, G, I, L): their product
    over the positions L is every sample's weight gradient, in G groups of (O, I). `total` and `matrices`
    are None for layers with a gradient that is not a sum of outer products.
    """

    each: Callable[[Any, Factors], Gradients]
    total: Callable[[Any, Factors], Gradients] | None = None
    matrices: Callable[[Any, Factors], tuple[Tensor, Tensor]] | None = None


def _linear_total(layer: nn.Linear, factors: Factors) -> Gradients:
    # y = Wx + c: ∂L/∂W = Σᵢₗ bᵢₗ ⊗ aᵢₗ = bᵀa and ∂L/∂c = Σᵢₗ bᵢₗ, with positions joined to samples
    a, b = factors.a.flatten(0, -2), factors.b.flatten(0, -2)
    return _with_bias(layer, b.T @ a, b, 0)


def _linear_each(layer: nn.Linear, factors: Factors) -> Gradients:
    # (B, …, I) to (B, L, I), and (B, …, O) to (B, L, O): positions L, such as tokens, in one dimension
    a = factors.a.reshape(len(factors.a), -1, layer.in_features)
    b = factors.b.reshape(len(factors.b), -1, layer.out_features)
    # Gᵢ = Σₗ bᵢₗ ⊗ aᵢₗ: (B, O, L) @ (B, L, I)
    return _with_bias(layer, b.transpose(1, 2) @ a, b, 1)


def _linear_matrices(layer: nn.Linear, factors: Factors) -> tuple[Tensor, Tensor]:
    # (B, 1, L, I) and (B, 1, L, O), a single group
    a = factors.a.reshape(len(factors.a), 1, -1, layer.in_features)
    b = factors.b.reshape(len(factors.b), 1, -1, layer.out_features)
    return b.transpose(2, 3), a.transpose(2, 3)


def _conv_total(layer: nn.Conv2d, factors: Factors) -> Gradients:
    # ∂L/∂W = Σᵢ Gᵢ, the ordinary weight gradient, and ∂L/∂c = Σᵢₗ bᵢₗ
    small = math.prod(factors.b.shape[2:]) <= math.prod(layer.kernel_size)
    if small and layer.groups == 1:
        weight = _weight_by_taps(layer, factors)
    else:
        weight = conv2d_weight(
            factors.a,
            layer.weight.shape,
            factors.b,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
    return _with_bias(layer, weight, factors.b, (0, 2, 3))


def _weight_by_taps(layer: nn.Conv2d, factors: Factors) -> Tensor:
    """Return the weight gradient (O, I, kh, kw) of a convolution, by one product for each tap.

    Outputs that a tap takes from the padding add nothing and are left out. On maps no larger than the
    kernel these are most, and torch's own gradient takes 3 to 50 times as long on a CPU.
    """
    # (H, W, n, I) and (P, Q, n, O): the positions first
    a, b = (value.permute(2, 3, 0, 1).contiguous() for value in (factors.a, factors.b))
    padding = cast(tuple[int, ...], layer.padding)  # layers_of refuses "same" and "valid"
    weight = a.new_zeros(*layer.kernel_size, b.shape[3], a.shape[3])
    for u, v in itertools.product(*map(range, layer.kernel_size)):
        shifts = (u * layer.dilation[0] - padding[0], v * layer.dilation[1] - padding[1])
        ys, xs = map(_reached, shifts, layer.stride, a.shape[:2], b.shape[:2])
        # ∂L/∂W[:, :, u, v] = Σ_{n, p, q} b[p, q, n] ⊗ a[p·s + u·d − pad, q·s + v·d − pad, n]
        inputs, outputs = a[ys[0], xs[0]].flatten(0, 2), b[ys[1], xs[1]].flatten(0, 2)
        torch.mm(outputs.T, inputs, out=weight[u, v])
    return weight.permute(2, 3, 0, 1)


def _reached(shift: int, stride: int, inputs: int, outputs: int) -> tuple[slice, slice]:
    """Return the inputs p·stride + shift that lie in 0 to `inputs` − 1, and the outputs p of them."""
    first = max(0, -(shift // stride))
    last = max(first, min(outputs, (inputs - 1 - shift) // stride + 1))
    start = first * stride + shift
    return slice(start, start + (last - first) * stride, stride), slice(first, last)


def _conv_each(layer: nn.Conv2d, factors: Factors) -> Gradients:
    b, columns = _conv_matrices(layer, factors)
    # Gᵢ = bᵢ aᵢᵀ is computed as (aᵢ bᵢᵀ)ᵀ: on a CPU this takes three quarters of the time.
    weight = (columns @ b.transpose(2, 3)).transpose(2, 3).contiguous().view(len(b), *layer.weight.shape)
    return _with_bias(layer, weight, factors.b, (2, 3))


def _conv_matrices(layer: nn.Conv2d, factors: Factors) -> tuple[Tensor, Tensor]:
    # A convolution is a linear layer on the patches (I = C/G·kh·kw numbers) of L = H'·W' positions.
    n, groups = len(factors.a), layer.groups
    columns = _columns(layer, factors).view(n, groups, -1, factors.b[0, 0].numel())
    return factors.b.reshape(n, groups, layer.out_channels // groups, -1), columns


def _columns(layer: nn.Conv2d, factors: Factors) -> Tensor:
    """Return the input patches of all positions, (B, C, kh, kw, H', W').

    This is F.unfold, but several times faster on a CPU: a strided view and one copy.
    """
    up, left = cast(tuple[int, ...], layer.padding)  # layers_of refuses "same" and "valid"
    a = F.pad(factors.a, (left, left, up, up))
    n, c, y, x = a.stride()
    (dy, dx), (sy, sx) = layer.dilation, layer.stride
    shape = (*a.shape[:2], *layer.kernel_size, *factors.b.shape[2:])
    # columns[i, c, u, v, p, q] = a[i, c, u·dy + p·sy, v·dx + q·sx]
    return a.as_strided(shape, (n, c, y * dy, x * dx, y * sy, x * sx)).contiguous()


def _with_bias(
    layer: nn.Linear | nn.Conv2d, weight: Tensor, b: Tensor, summed: int | tuple[int, ...]
) -> Gradients:
    """Add the bias gradient, if the layer has a bias: the sum of `b` over these dimensions."""
    return {"weight": weight} if layer.bias is None else {"weight": weight, "bias": b.sum(summed)}


def _group_norm_each(layer: nn.GroupNorm, factors: Factors) -> Gradients:
    # y = γ∘x̂ + β: ∂L/∂γ = Σₗ bₗ∘x̂ₗ and ∂L/∂β = Σₗ bₗ, with x̂ the normalised input
    normal = F.group_norm(factors.a, layer.num_groups, eps=layer.eps)
    product = normal.mul_(factors.b).flatten(2)
    return {"weight": product.sum(2), "bias": factors.b.flatten(2).sum(2)}


def _layer_norm_each(layer: nn.LayerNorm, factors: Factors) -> Gradients:
    # as for GroupNorm, with the positions (tokens) before the normalised dimensions
    normal = F.layer_norm(factors.a, layer.normalized_shape, eps=layer.eps)
    shape = (len(factors.a), -1, *layer.normalized_shape)
    product = normal.mul_(factors.b).reshape(shape)
    return {"weight": product.sum(1), "bias": factors.b.reshape(shape).sum(1)}


RULES: Mapping[type[nn.Module], Rule] = {
    nn.Linear: Rule(_linear_each, _linear_total, _linear_matrices),
    nn.Conv2d: Rule(_conv_each, _conv_total, _conv_matrices),
    nn.GroupNorm: Rule(_group_norm_each),
    nn.LayerNorm: Rule(_layer_norm_each),
    # y = [token; x]: ∂L/∂token = b at the first position. y = x + table: ∂L/∂table = b.
    ClassToken: Rule(lambda layer, factors: {"token": factors.b[:, None, :1]}),
    Positions: Rule(lambda layer, factors: {"table": factors.b[:, None]}),
}


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that own parameters, by name.

    Raise UserError, naming the layer, if a layer couples samples or has no rule. Raise UserError if two
    layers own the same parameter.
    """
    refuse_batch_norm(model)
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if not list(module.parameters(recurse=False)):
            continue
        odd = isinstance(module, nn.Conv2d) and (
            module.padding_mode != "zeros" or isinstance(module.padding, str)
        )
        if type(module) not in RULES or odd:
            raise UserError(
                f"{name or 'the model'} is a {type(module).__name__}, whose per-sample gradients have "
                "no rule: choose another model, or record batch updates"
            )
        found[name] = module
    own = sum(p.numel() for module in found.values() for p in module.parameters(recurse=False))
    if own != sum(parameter.numel() for parameter in model.parameters()):
        raise UserError(
            "two layers share a parameter, whose per-sample gradients have no rule: choose another "
            "model, or record batch updates"
        )
    return found


class Capture:
    """A context manager that keeps the factors of every layer during forward and backward passes.

    Raise UserError if a layer has no rule (see `layers_of`).
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = layers_of(model)
        self._uses: dict[str, list[_Use]] = {name: [] for name in self.layers}

    def __enter__(self) -> "Capture":
        self._hooks = [
            layer.register_forward_hook(self._keeper(name)) for name, layer in self.layers.items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def take(self) -> dict[str, list[Factors]]:
        """Return the factors since the last call, by layer name, and forget them.

        A layer has one entry for each use that a backward pass has reached. Raise UserError if an input
        was changed in place since.
        """
        taken = {
            name: [use.factors(name) for use in uses if use.b is not None]
            for name, uses in self._uses.items()
        }
        for uses in self._uses.values():
            uses.clear()
        return taken

    def _keeper(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """Return a forward hook that keeps the layer's input, and later its output's gradient."""

        def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.requires_grad:
                use = _Use(inputs[0].detach(), inputs[0]._version)
                self._uses[name].append(use)
                output.register_hook(use.keep_gradient)

        return keep


@dataclass
class _Use:
    """One use of a layer: its input, the input's version at that time, and the output's gradient."""

    a: Tensor
    version: int
    b: Tensor | None = None

    def keep_gradient(self, gradient: Tensor) -> None:
        self.b = gradient.detach()

    def factors(self, name: str) -> Factors:
        assert self.b is not None
        if self.a._version != self.version:
            raise UserError(
                f"the input of {name} was changed in place after it was used: choose another model, or "
                "use no in-place operation on it"
            )
        return Factors(self.a, self.b)
