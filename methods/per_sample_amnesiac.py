"""Per-sample amnesiac: subtract the forgotten rows' share of every update.

Idea: amnesiac unlearning that spares the other rows of a batch.
Update rule: θ_u = θ_o − strength · Σ_{i ∈ D_f} share_i, with share_i = Σ_t c_t·g_{i,t}/B_t from the
record.
Needs: a record of per-sample gradients (`recorder=[per_sample]`) and no data; if `strength` is auto,
the forgotten rows.
Differs from the paper: the paper stores a random part of every gradient and leaves the coefficient c_t
open. Here the record is complete unless its `form: masked` asks for the paper's, and c_t is SGD's exact
coefficient or the learning rate of the step. A `strength` of 1 subtracts the linear share; later steps
have undone part of it, so a smaller strength can be enough. `auto` finds the smallest strength that
brings the accuracy on the forgotten rows down to `target`, by doubling and bisection, and logs the
number of evaluations.
Reference: paper 004 (Marincione).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from data.bounds import BELOW_ONE, STRENGTH
from data.errors import UserError
from methods.base import Access, Method, Problem, accuracy
from methods.recording.per_sample import PerSample, SampleRecord
from methods.recording.recorder import Recorder

AUTO = "auto"

# The search doubles a strength of 1 at most ten times and then halves the interval five times.
DOUBLINGS, HALVINGS = 10, 5


@dataclass(frozen=True)
class PerSampleAmnesiac(Method):
    """`strength` is a number or "auto"; `target` is the accuracy, below 1, at which "auto" stops."""

    kind: ClassVar[str] = "methods.per_sample_amnesiac.PerSampleAmnesiac"
    access: ClassVar[Access] = Access.NOTHING
    version: ClassVar[int] = 2  # 1 subtracted something even if nothing had to be
    records: ClassVar[type[Recorder] | None] = PerSample
    strength: Annotated[int, STRENGTH] | Annotated[float, STRENGTH] | str
    target: Annotated[float, BELOW_ONE]

    def identity(self) -> dict[str, Any]:
        strength = self.strength if isinstance(self.strength, str) else float(self.strength)
        return super().identity() | {"strength": strength}

    def sees(self) -> Access:
        return Access.FORGET if self.strength == AUTO else Access.NOTHING

    def check_parameters(self, option: str) -> None:
        if isinstance(self.strength, str) and self.strength != AUTO:
            raise UserError(f"{option}.strength={self.strength}: set a number, or auto")

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        model = problem.model
        # Σ_{i ∈ D_f} Σ_t c_t·g_{i,t}/B_t, by parameter name
        share = SampleRecord.open(problem.recording).share(model, problem.forget_rows)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}

        def subtract(strength: float) -> None:
            # θ_u = θ_o − strength · Σ_{i ∈ D_f} share_i
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name] - strength * share[name])

        def reached(strength: float) -> bool:
            subtract(strength)
            return accuracy(model, problem.forget, problem.conditions) <= self.target

        strength = self.strength
        if isinstance(strength, str):
            strength, evaluations = smallest(reached)
            problem.conditions.log({"strength": strength, "evaluations": evaluations})
        subtract(strength)
        return model


def smallest(reached: Callable[[float], bool]) -> tuple[float, int]:
    """Find the smallest strength that is enough, to 1/32 of the next power of two.

    Return it and the number of evaluations of `reached`. Raise UserError if no strength up to 1024 is
    enough.
    """
    if reached(0.0):
        return 0.0, 1
    evaluations = 2
    # invariant of both loops: `low` is too little; after the first, `high` is enough
    low, high = 0.0, 1.0
    while not reached(high):
        if evaluations > DOUBLINGS + 1:
            raise UserError(f"no strength up to {high:g} reaches the target: set method.target higher")
        low, high = high, 2 * high
        evaluations += 1
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
        evaluations += 1
    return high, evaluations
