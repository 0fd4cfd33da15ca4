"""Leave-one-out: how the trained weights would differ if one row's gradient had been missing.

Idea: the difference between two trainings, with a row and without it, follows a linear recursion along
the training that took place.
Record: a_i ≈ θ_{−i} − θ for every tracked row i, over all M weights, in `vectors.entries`. θ_{−i} ends
the same batches, in which row i has no gradient and the divisor B stays. To first order in the
difference, a step of SGD at the learning rate η, on a batch b with the mean loss ℓ_b, is

    a_i ← a_i − η·H_b a_i,  plus (η/B)·∇ℓ_i if i ∈ b,  from a_i = 0,  with H_b = ∇²ℓ_b(θ_t).

Momentum and weight decay are linear in the gradient and change in the same way. The factor by which a
gradient is clipped and Adam's second moments are held as they were. H_b a_i comes from a second backward
pass, without the matrix. The model is in evaluation mode, and in float32.
Size: T·M float32 numbers for T tracked rows, and as many in memory; twice as many there with momentum or
Adam. Costs a Hessian-vector product on the batch, some two backward passes, for each tracked row that a
batch has held, in every step. So track only the rows that may be asked for.
Differs from the reference code: that adds the row's gradient first, so that the product changes it too.
Reference: Qiao et al., Hessian-Free Online Certified Unlearning, ICLR 2025.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from data.errors import UserError
from data.split import Batch
from methods.recording.estimates import in_words
from methods.recording.files import Entries, EntryFile
from methods.recording.recorder import ABOUT, ROWS, RecordedTraining, Recorder, close_record
from methods.training.checkpoint import State
from methods.training.descent import Optimizer, Step
from methods.training.divergence import Diverged
from methods.training.memory import available_memory
from methods.weights.curvature import differentiable, parts
from methods.weights.layers import without_hooks

VECTORS = "vectors"

# Vectors that are written or read at once.
CHUNK = 4


@dataclass(frozen=True)
class LeaveOneOut(Recorder):
    """Keeps a vector as large as the model for every tracked row."""

    kind: ClassVar[str] = "methods.recording.leave_one_out.LeaveOneOut"
    goes_on: ClassVar[bool] = True

    def estimated_bytes(self, training: RecordedTraining, tracked: Tensor | None = None) -> int:
        tracked = self.tracked(training.split) if tracked is None else tracked
        return 4 * len(tracked) * training.parameters

    def check(self, training: RecordedTraining, option: str) -> None:
        """Raise UserError if the vectors do not fit into memory."""
        super().check(training, option)
        copies = 2 if _has_velocity(training) else 1
        needed = copies * self.estimated_bytes(training)
        free = available_memory(training.split.images.device)
        if needed > free:
            cures = list(self.cures(training, int(free / copies), option))
            raise UserError(
                f"{option} would hold {in_words(needed)} in memory, but {in_words(free)} are free: set "
                f"{', or '.join(cures or ['a smaller model (model=…)'])}"
            )

    def summary(self, training: RecordedTraining, option: str, asked: int) -> str:
        products = len(self.tracked(training.split))
        return (
            f"{super().summary(training, option, asked)}; {products} Hessian-vector products in each of "
            f"{training.steps} steps"
        )

    def watch(self, steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
        recursion = _Recursion(training, self.tracked(training.split))
        training.keep(recursion)
        with self.writer(training.folder) as writer:
            for step in steps:
                recursion.close_step()
                recursion.open_step(step)
                yield step
            recursion.close_step()
            if not recursion.vectors.isfinite().all():
                raise Diverged(
                    "the vectors of leave_one_out are no longer finite: lower training.lr, or add "
                    "training.weight_decay"
                )
            file = EntryFile(training.folder, VECTORS)
            for some in recursion.vectors.split(CHUNK):
                writer.do(partial(file.append, some.cpu()))
            writer.do(file.close)
        about = json.dumps({"parameters": training.parameters})
        close_record(writer, training.folder, about, self.index(training.split))


def change_without(folder: Path, rows: Tensor) -> Tensor:
    """Return Σ a_i (M,) float32 over these tracked rows, on the CPU; memory does not grow with them.

    Raise Damaged if a vector was altered.
    """
    tracked = load_file(folder / ROWS)["tracked"]
    parameters = json.loads((folder / ABOUT).read_text())["parameters"]
    entries = Entries.open(folder, VECTORS, 4 * parameters)
    total = torch.zeros(parameters, dtype=torch.float64)
    # `tracked` ascends, so binary search finds the number of a row's entry
    for numbers in torch.searchsorted(tracked, rows.cpu()).split(CHUNK):
        total += entries.read(numbers, torch.float32).sum(0, dtype=torch.float64)
    return total.float()


@dataclass(frozen=True)
class _Rule:
    """An optimizer's update of a vector a, for the change d of the gradient and a velocity u:
    u ← kept·u + fresh·(d + coupled·a), then a ← decayed·a − rate·u. `rate` may differ by weight (M,)."""

    kept: float
    fresh: float
    coupled: float
    decayed: float
    rate: float | Tensor


def _sgd(optimizer: torch.optim.Optimizer) -> _Rule:
    group = optimizer.param_groups[0]
    # v ← μv + g + λθ, then θ ← θ − lr·v
    return _Rule(group["momentum"], 1, group["weight_decay"], 1, group["lr"])


def _adam(optimizer: torch.optim.Optimizer) -> _Rule:
    group = optimizer.param_groups[0]
    first, second = group["betas"]
    states = [optimizer.state[parameter] for parameter in group["params"]]
    square = torch.cat([state["exp_avg_sq"].flatten() for state in states])
    count = float(states[0]["step"])
    # m ← β₁m + (1 − β₁)(g + λθ), then θ ← θ − lr·m/(1 − β₁^t) / (√(v/(1 − β₂^t)) + ε)
    root = (square / (1 - second**count)).sqrt() + group["eps"]
    rate = group["lr"] / (1 - first**count) / root
    return _Rule(first, 1 - first, group["weight_decay"], 1, rate)


def _adamw(optimizer: torch.optim.Optimizer) -> _Rule:
    found, group = _adam(optimizer), optimizer.param_groups[0]
    # the decay is apart from the gradient: θ ← (1 − lr·λ)θ, then Adam's step
    return _Rule(found.kept, found.fresh, 0, 1 - group["lr"] * group["weight_decay"], found.rate)


_RULES: Mapping[Optimizer, Callable[[torch.optim.Optimizer], _Rule]] = {
    Optimizer.sgd: _sgd,
    Optimizer.adam: _adam,
    Optimizer.adamw: _adamw,
}


def _has_velocity(training: RecordedTraining) -> bool:
    return training.recipe.optimizer is not Optimizer.sgd or training.recipe.momentum > 0


class _Recursion:
    """The vectors (T, M) of tracked rows, carried along a training.

    A step is opened between its backward pass and its update, and closed after the update, when the
    optimizer has the moments that it used. A copy of the model keeps the weights of the open step.
    """

    def __init__(self, training: RecordedTraining, tracked: Tensor) -> None:
        self.recipe, self.tracked = training.recipe, tracked
        self.twin = without_hooks(training.model).eval().requires_grad_()
        size = (len(tracked), training.parameters)
        self.vectors = torch.zeros(size, device=tracked.device)
        self.velocities = torch.zeros_like(self.vectors) if _has_velocity(training) else None
        self.held = torch.zeros(len(tracked), dtype=torch.bool)  # rows that a batch has held
        self.open: tuple[Step, float] | None = None

    @torch.no_grad()
    def open_step(self, step: Step) -> None:
        """Note the weights θ_t, and the factor by which the gradient will be clipped."""
        for kept, weight in zip(self.twin.parameters(), step.model.parameters(), strict=True):
            kept.copy_(weight)
        factor = 1.0
        if self.recipe.clip is not None:
            # min(1, clip/‖g‖), as in the training loop
            squares = [
                weight.grad.square().sum()
                for weight in step.model.parameters()
                if weight.grad is not None
            ]
            factor = min(1.0, self.recipe.clip / (math.sqrt(float(torch.stack(squares).sum())) + 1e-6))
        self.open = step, factor

    def close_step(self) -> None:
        """Move the vectors by the update that the open step has taken, if there is one."""
        if self.open is None:
            return
        (step, factor), self.open = self.open, None
        rule = _RULES[self.recipe.optimizer](step.optimizer)
        for number, change in self._changes(step.batch):
            self._move(number, factor * change, rule)

    def state_dict(self) -> State:
        self.close_step()
        state = {"vectors": self.vectors, "held": self.held}
        return state if self.velocities is None else {**state, "velocities": self.velocities}

    def load_state_dict(self, state: State) -> None:
        self.held = state["held"]
        self.vectors.copy_(state["vectors"])
        if self.velocities is not None:
            self.velocities.copy_(state["velocities"])

    def _changes(self, batch: Batch) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of each vector that moves, and the change of the batch's gradient (M,)."""
        places = {row: place for place, row in enumerate(batch.rows.tolist())}
        weights = list(self.twin.parameters())
        with differentiable():
            loss = F.cross_entropy(self.twin(batch.images), batch.labels)
            gradient = torch.autograd.grad(loss, weights, create_graph=True)
            for number, row in enumerate(self.tracked.tolist()):
                place = places.get(row)
                if place is None and not self.held[number]:
                    continue  # a_i is 0 until a batch holds the row
                self.held[number] = True
                vector = parts(weights, self.vectors[number])
                # d_i = H_b a_i, minus ∇ℓ_i/B if i ∈ b
                change = _flat(torch.autograd.grad(gradient, weights, vector, retain_graph=True))
                if place is not None:
                    change -= self._row_gradient(batch, place) / len(batch.rows)
                yield number, change

    def _row_gradient(self, batch: Batch, place: int) -> Tensor:
        """Return ∇ℓ_i (M,) of the row at this place of the batch."""
        image, label = batch.images[place : place + 1], batch.labels[place : place + 1]
        loss = F.cross_entropy(self.twin(image), label)
        return _flat(torch.autograd.grad(loss, list(self.twin.parameters())))

    def _move(self, number: int, change: Tensor, rule: _Rule) -> None:
        """Update one vector by the change of its gradient."""
        vector = self.vectors[number]
        # u ← kept·u + fresh·(d + coupled·a)
        velocity = rule.fresh * (change + rule.coupled * vector)
        if self.velocities is not None:
            velocity += rule.kept * self.velocities[number]
            self.velocities[number] = velocity
        # a ← decayed·a − rate·u
        self.vectors[number] = rule.decayed * vector - rule.rate * velocity


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
