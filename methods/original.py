"""Original: do nothing.

Idea: the trained model itself, which is the first line of every table.
Update rule: θ_u = θ_o.
Needs: nothing.
Reference: none.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.base import Access, Method, Problem


@dataclass(frozen=True)
class Original(Method):
    kind: ClassVar[str] = "methods.original.Original"
    access: ClassVar[Access] = Access.NOTHING

    def unlearn(self, problem: Problem) -> nn.Module:
        return problem.model
