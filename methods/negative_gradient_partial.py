"""Partial negative gradient: climb the loss, moving a share of each layer only.

Idea: as negative gradient, but a fraction of each layer is enough, and harms the rest less.
Update rule: that of `methods.negative_gradient`, its stop rule included, every update through the masks
of `methods.partial_descent`: few weights at the input, more towards the output.
Needs: the forgotten rows.
Differs from the paper: it gives neither shares nor whether the masks stay; they are drawn anew for every
update here.
Reference: Gogineni & Nadimi 2024 (paper 002).
"""

from dataclasses import dataclass
from typing import ClassVar

from methods.families.partial_descent import PartialDescent
from methods.negative_gradient import NegativeGradient


@dataclass(frozen=True)
class NegativeGradientPartial(PartialDescent, NegativeGradient):
    """`keep_first` and `keep_last` are the shares of the first and of the last layer."""

    kind: ClassVar[str] = "methods.negative_gradient_partial.NegativeGradientPartial"
