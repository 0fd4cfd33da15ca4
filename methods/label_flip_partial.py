"""Partial label flip: teach wrong answers, moving only a share of each layer.

Idea: label flipping in a fraction of each layer forgets as well and does less damage.
Update rule: that of `methods.label_flip`, with each update masked by
`methods.families.partial_descent`: few weights move near the input, more near the output.
Needs: the forgotten rows; with `include_retain` the retained rows too.
Differs from the paper: the paper gives no shares and does not say if the masks stay the same. Here each
update draws new masks.
Reference: Gogineni & Nadimi 2024 (paper 002).
"""

from dataclasses import dataclass
from typing import ClassVar

from methods.families.partial_descent import PartialDescent
from methods.label_flip import LabelFlip


@dataclass(frozen=True)
class LabelFlipPartial(PartialDescent, LabelFlip):
    """`keep_first` and `keep_last` are the shares of the first and the last layer that move."""

    kind: ClassVar[str] = "methods.label_flip_partial.LabelFlipPartial"
