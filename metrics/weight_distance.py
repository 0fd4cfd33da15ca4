"""Weight distance: the distance of the parameters from the original's and from the retrained model's.

Formula: ‖θ − θ'‖ = √(Σ_l ‖θ_l − θ'_l‖²), and relative to ‖θ'‖, the norm of the other model. Buffers,
such as running averages, are no parameters.
Independent initialisations lie about √2·‖θ‖ apart. So the distance to the retrained model says something
only of methods that keep its initialisation.
Source: Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020, arXiv 1911.04933; there
relative to the norm of θ.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class WeightDistance(Metric):
    """`distance_to_original`, `distance_to_reference`, and both `relative_…`.

    The matrix `layer_distance` has a row for each layer, in the order of the parameters: its distance to
    the original, absolute and relative. A layer is a module that holds parameters of its own. A distance
    is absent if the architectures differ, and a relative one also if the other norm is 0.
    """

    kind: ClassVar[str] = "metrics.weight_distance.WeightDistance"
    needs: ClassVar[Needs] = Needs.WEIGHTS
    parts: ClassVar[tuple[str, ...]] = ()

    def about(self) -> Mapping[str, Score]:
        to_original = "Distance of the parameters from the original's"
        to_reference = "Distance of the parameters from the retrained model's"
        by_layer = "Distance of each layer's parameters from the original's, absolute and relative."
        over = "relative to their norm"
        return {
            "distance_to_original": Score(
                f"{to_original}.",
                Better.reference,
                "weights",
                title="distance of weights from original",
                alone=True,
            ),
            "distance_to_reference": Score(
                f"{to_reference}.", Better.lower, "weights", title="distance of weights from retrained"
            ),
            "relative_distance_to_original": Score(
                f"{to_original}, {over}.",
                Better.reference,
                "ratio",
                title="relative distance of weights from original",
                alone=True,
            ),
            "relative_distance_to_reference": Score(
                f"{to_reference}, {over}.",
                Better.lower,
                "ratio",
                title="relative distance of weights from retrained",
            ),
            "layer_distance": Score(
                by_layer, Better.reference, "weights", title="distance by layer", alone=True
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        weights = evidence.weights
        scores: Scores = {}
        if _shapes(weights.own) == _shapes(weights.original):
            scores |= _distances(weights.own, weights.original, "original")
            scores |= _by_layer(weights.own, weights.original)
        if weights.reference is not None and _shapes(weights.own) == _shapes(weights.reference):
            scores |= _distances(weights.own, weights.reference, "reference")
        return scores


def _shapes(parameters: Parameters) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in parameters.items()}


def _distances(own: Parameters, other: Parameters, name: str) -> Scores:
    """Return the distance to the other model and, if that has a norm, the relative one."""
    absolute, norm = _distance(own, other, other)
    scores: Scores = {f"distance_to_{name}": absolute}
    if norm > 0:
        scores[f"relative_distance_to_{name}"] = absolute / norm
    return scores


def _by_layer(own: Parameters, other: Parameters) -> Scores:
    """Return the matrix (layers, 2) of absolute and relative distances; none if one is undefined."""
    layers: dict[str, list[str]] = {}
    for name in other:
        # "conv1.weight" and "conv1.bias" are of layer "conv1"; a parameter of the model itself is one
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    distances = [_distance(own, other, names) for names in layers.values()]
    if not all(math.isfinite(absolute) and norm > 0 for absolute, norm in distances):
        return {}
    return {"layer_distance": [[absolute, absolute / norm] for absolute, norm in distances]}


def _distance(own: Parameters, other: Parameters, names: Iterable[str]) -> tuple[float, float]:
    """Return the distance of the named parameters, and the other model's norm."""
    squares, norm = 0.0, 0.0
    for name in names:
        theirs = other[name].double()
        # Σ_l ‖θ_l − θ'_l‖² and Σ_l ‖θ'_l‖²
        squares += (own[name].double() - theirs).square().sum().item()
        norm += theirs.square().sum().item()
    return math.sqrt(squares), math.sqrt(norm)
