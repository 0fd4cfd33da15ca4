"""Partial negative gradient: climb the loss, moving only a share of each layer.

Idea: gradient ascent in a fraction of each layer forgets as well and does less damage.
Update rule: that of `methods.negative_gradient`, stop rule included, with each update masked by
`methods.families.partial_descent`: few weights move near the input, more near the output.
Needs: the forgotten rows.
Differs from the paper: the paper gives no shares and does not say if the masks stay the same. Here each
update draws new masks.
Reference: Gogineni & Nadimi 2024 (paper 002).
"""

from dataclasses import dataclass
from typing import ClassVar

from methods.families.partial_descent import PartialDescent
from methods.negative_gradient import NegativeGradient


@dataclass(frozen=True)
class NegativeGradientPartial(PartialDescent, NegativeGradient):
    """`keep_first` and `keep_last` are the shares of the first and the last layer that move."""

    kind: ClassVar[str] = "methods.negative_gradient_partial.NegativeGradientPartial"
