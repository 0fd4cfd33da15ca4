"""Partial label flip: teach wrong answers, moving a share of each layer only.

Idea: as label flip, but a fraction of each layer is enough, and harms the rest less.
Update rule: that of `methods.label_flip`, every update through the masks of `methods.partial_descent`:
few weights at the input, more towards the output.
Needs: the forgotten rows; the retained ones too with `include_retain`.
Differs from the paper: it gives neither shares nor whether the masks stay; they are drawn anew for every
update here.
Reference: Gogineni & Nadimi 2024 (paper 002).
"""

from dataclasses import dataclass
from typing import ClassVar

from methods.families.partial_descent import PartialDescent
from methods.label_flip import LabelFlip


@dataclass(frozen=True)
class LabelFlipPartial(PartialDescent, LabelFlip):
    """`keep_first` and `keep_last` are the shares of the first and of the last layer."""

    kind: ClassVar[str] = "methods.label_flip_partial.LabelFlipPartial"
