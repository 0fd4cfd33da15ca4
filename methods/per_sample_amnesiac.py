"""Per-sample amnesiac: subtract what the forgotten rows themselves have added.

Idea: as amnesiac, but leaving the other rows of their batches alone.
Update rule: θ_u = θ_o − strength · Σ_{i ∈ D_f} share_i; share_i = Σ_t c_t·g_{i,t}/B_t from the record.
Needs: a record of per-sample gradients (`recorder=per_sample`), and no data at all; the forgotten rows
where `strength` is auto.
Differs from the paper: it stores a random part of every gradient and leaves the coefficient open; the
record is complete here unless `form: masked` asks for the paper's, and the coefficient is SGD's exact
one, or the step's learning rate. `strength` 1 is the linear share; later steps have made up for part of
it, so less can be enough. `auto` takes the smallest that brings the accuracy on the forgotten rows
down to `target`, found by doubling and bisection; how many evaluations that took is logged.
Reference: paper 004 (Marincione).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from data.errors import UserError
from methods.base import Access, Method, Problem, accuracy
from methods.recording.per_sample import PerSample, SampleRecord
from methods.recording.recorder import Recorder
from methods.training.checks import zero_or_more

AUTO = "auto"

# A search doubles 1 at most so often, and then halves the interval so often.
DOUBLINGS, HALVINGS = 10, 5


@dataclass(frozen=True)
class PerSampleAmnesiac(Method):
    kind: ClassVar[str] = "methods.per_sample_amnesiac.PerSampleAmnesiac"
    access: ClassVar[Access] = Access.NOTHING
    version: ClassVar[int] = 2  # 1 subtracted something even where nothing had to be
    records: ClassVar[type[Recorder] | None] = PerSample
    strength: int | float | str
    target: float

    def identity(self) -> dict[str, Any]:
        strength = self.strength if isinstance(self.strength, str) else float(self.strength)
        return super().identity() | {"strength": strength}

    def sees(self) -> Access:
        return Access.FORGET if self.strength == AUTO else Access.NOTHING

    def check_parameters(self, option: str) -> None:
        if isinstance(self.strength, str) and self.strength != AUTO:
            raise UserError(f"{option}.strength={self.strength}: set a number, or auto")
        if not isinstance(self.strength, str):
            zero_or_more(option, self, "strength")
        if not 0 <= self.target < 1:
            raise UserError(f"{option}.target={self.target}: an accuracy from 0 to below 1")

    @torch.no_grad()
    def unlearn(self, problem: Problem) -> nn.Module:
        model = problem.model
        share = SampleRecord.open(problem.recording).share(model, problem.forget_rows)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}

        def subtract(strength: float) -> None:
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
    """The smallest strength that is enough, to a 32nd of the power of two above it, and the number of
    evaluations. Raises UserError where none up to 1024 is."""
    if reached(0.0):
        return 0.0, 1
    evaluations = 2
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
