"""Partial amnesiac: subtract a part of every update of a batch that held a forgotten row.

Idea: as amnesiac, but a fraction of each layer's update is enough, and harms the rest less.
Update rule: θ_u = θ_o − strength · Σ_{t: b_t ∩ D_f ≠ ∅} P_{l,t} ⊙ Δ_t, with a mask P_{l,t} of layer l at
step t.
Needs: a record of layer-wise updates (`recorder=[layerwise]`), and no data; if `strength` is auto, the
forgotten rows.
Differs from the paper: it gives neither a pruning schedule nor code. Here options of the recorder set
the shares that the first and the last layer keep, and the choice of the numbers that are kept.
Reference: Gogineni & Nadimi 2024 (paper 002).
"""

from dataclasses import dataclass
from typing import ClassVar

from methods.amnesiac import Amnesiac
from methods.recording.batch_updates import Unpacker
from methods.recording.layerwise import Layerwise, Part
from methods.recording.recorder import Recorder


@dataclass(frozen=True)
class AmnesiacPartial(Amnesiac):
    kind: ClassVar[str] = "methods.amnesiac_partial.AmnesiacPartial"
    records: ClassVar[type[Recorder] | None] = Layerwise
    unpacker: ClassVar[Unpacker] = Part
