"""Unlearning by subtracting what a record holds, times a strength.

Update rule: θ_u = θ_o − strength · S, with the sum S that the record gives for the forgotten rows.
A `strength` of 1 subtracts the recorded sum. Training that followed a recorded step has undone part of
it, so a smaller strength can be enough; a sum of a part of every update can need a larger one. `auto`
finds the smallest strength that brings the accuracy on the forgotten rows down to `target`, by doubling
or halving and then bisection, and logs the strength and the number of evaluations. The search sees the
forgotten rows; the update sees no data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from data.bounds import BELOW_ONE, STRENGTH
from data.errors import UserError
from methods.base import Access, Method, Problem, accuracy

AUTO = "auto"

# The search doubles or halves a strength of 1 up to ten times, and then halves the interval five times.
OCTAVES, HALVINGS = 10, 5


@dataclass(frozen=True)
class Subtraction(Method):
    """`strength` is a number or "auto"; `target` is the accuracy, below 1, at which "auto" stops."""

    access: ClassVar[Access] = Access.NOTHING
    logs: ClassVar[tuple[str, ...]] = ("strength", "evaluations")
    strength: Annotated[int, STRENGTH] | Annotated[float, STRENGTH] | str
    target: Annotated[float, BELOW_ONE]

    def identity(self) -> dict[str, Any]:
        strength = self.strength if isinstance(self.strength, str) else float(self.strength)
        return super().identity() | {"strength": strength}

    def idle(self) -> Mapping[str, str]:
        return {} if self.strength == AUTO else {"target": "strength=auto alone searches for it"}

    def sees(self) -> Access:
        return Access.FORGET if self.strength == AUTO else Access.NOTHING

    def check_parameters(self, option: str) -> None:
        if isinstance(self.strength, str) and self.strength != AUTO:
            raise UserError(f"{option}.strength={self.strength}: set a number, or auto")

    def subtracted(self, problem: Problem, total: Tensor) -> nn.Module:
        """Return `problem.model` less `strength` times `total` (M,), in the order of its parameters."""
        model = problem.model
        before = parameters_to_vector(model.parameters()).detach()  # θ_o (M,)
        total = total.to(before.device)

        def subtract(strength: float) -> None:
            # θ_u = θ_o − strength · S
            vector_to_parameters(before - strength * total, model.parameters())

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
    """Find the smallest strength that is enough, to 1/32 of the power of two below it.

    Return it and the number of evaluations of `reached`. Powers of two go from 2^-10, below which steps
    are 1/32 of that, to 2^10. Raise UserError if no strength up to 1024 is enough.
    """
    if reached(0.0):
        return 0.0, 1
    enough = reached(1.0)
    low, high, evaluations = (0.5, 1.0, 2) if enough else (1.0, 2.0, 2)
    # Two neighbouring powers of two, of which the lower is too little and the higher is enough.
    for _ in range(OCTAVES):
        evaluations += 1
        if reached(low if enough else high) is not enough:
            break
        low, high = (low / 2, high / 2) if enough else (low * 2, high * 2)
    else:
        if not enough:
            raise UserError(f"no strength up to {low:g} reaches the target: set method.target higher")
        low = 0.0
    # invariant: `low` is too little and `high` is enough
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
        evaluations += 1
    return high, evaluations
