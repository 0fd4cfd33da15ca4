"""One training over several processes: each computes the passes over its rows of every batch.

The first process runs the program. It draws every batch whole, computes the loss from the logits of all
rows, and takes the step: order, augmentation, losses, updates and records are those of one process. The
others hold a copy of the model, and do what they are asked for:

    forward    they receive the weights θ and the images of their rows, and return these rows' logits z
    backward   they receive ∂L/∂z of their rows; the gradients ∂L/∂θ are summed over all processes
    factors    they return the factors of their rows' gradients, for a record (see `Capture`)

Weights go out and gradients come back: as many bytes as an all-reduce of the gradients moves. Thereby
no other process has an optimizer, a generator or a record, whose state could drift or had to be kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from data.errors import UserError
from methods.training.messages import Asked, Link, handed_out
from methods.weights.layers import without_hooks
from methods.weights.per_sample_gradients import Capture, Factors
from models.precision import autocast

Forward = Callable[[Tensor], Tensor]  # images (B, C, H, W) to logits (B, K)


class Processes:
    """A process alone, which computes every batch itself."""

    count = 1

    def forward(self, model: nn.Module, bf16: bool) -> Forward:
        """Return the forward pass of a model that trains, in bfloat16 autocast if `bf16` is true."""
        return model

    def capture(self, model: nn.Module) -> Capture:
        """Return a capture of the factors of all rows of a batch."""
        return Capture(model)


ALONE = Processes()


class OwnPasses:
    """The passes of one process over its rows of a batch."""

    def __init__(self, model: nn.Module, bf16: bool) -> None:
        self.model, self.bf16 = model, bf16
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of the rows, and keep their graph."""
        with torch.enable_grad(), autocast(self.bf16, images.device):
            self._logits = self.model(images)
        logits: Tensor = self._logits.detach()
        return logits

    def backward(self, gradient: Tensor) -> Sequence[Tensor | None]:
        """Return Σ_i ∂L/∂z_i · ∂z_i/∂θ over the rows, given ∂L/∂z (B, K); None for an unused weight."""
        return torch.autograd.grad(self._logits, self.weights, gradient, allow_unused=True)

    def flat(self, gradients: Iterable[Tensor | None]) -> Tensor:
        """Return gradients as one vector, with zeros for None."""
        pairs = zip(self.weights, gradients, strict=True)
        return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in pairs])


class Leader(Processes):
    """The first of several processes, which asks the others."""

    def __init__(self, link: Link) -> None:
        self.count = link.count
        self.rows = 0  # of the latest batch
        self.captures = 0  # that watch the model now
        self._link = link
        self._torn = False  # true within a task, in which the others wait for more
        self._held: tuple[Any, ...] = ()

    def forward(self, model: nn.Module, bf16: bool) -> Forward:
        """Return the forward pass of a model over all processes.

        It raises UserError if the logits of a row depend on other rows or on random numbers, or if a
        hook that is no capture's watches the model: it would see the rows of this process alone.
        """
        return _Shared(self, model, bf16)

    def capture(self, model: nn.Module) -> Capture:
        return _JoinedCapture(model, self)

    @contextmanager
    def asking(self, task: Asked) -> Iterator[Link]:
        """Give all others a task, in which the body takes part."""
        self._torn = True
        self._link.tell(task, self.rows)
        yield self._link
        self._torn = False

    def end(self) -> None:
        """Let the others end, if they wait for a task. Else they end when this process does."""
        if not self._torn:
            self._link.tell(Asked.end)

    def hold(self, shared: "_Shared", images: Tensor) -> None:
        """Let the others hold a copy of a model, unless they hold this one in its present modes."""
        model = shared.model
        modes = [module.training for module in model.modules()]
        modes += [weight.requires_grad for weight in model.parameters()]
        buffers = [value._version for value in model.buffers()]
        now = (shared, self.captures, modes, buffers)
        if now == self._held:
            return
        refuse_other_hooks(model, self.captures)
        twin = without_hooks(model)
        refuse_coupled_rows(twin, images[:1], shared.bf16)
        with self.asking(Asked.hold):
            handed_out((twin.cpu(), shared.bf16, images.shape[1:], self.captures > 0))
        self._held = now


class _Shared:
    """A forward pass over all processes; its backward pass goes over all of them too."""

    def __init__(self, leader: Leader, model: nn.Module, bf16: bool) -> None:
        self.leader, self.model, self.bf16 = leader, model, bf16

    def __call__(self, images: Tensor) -> Tensor:
        self.leader.hold(self, images)
        self._own_passes = OwnPasses(self.model, self.bf16)
        logits: Tensor = _Passes.apply(self, images, *self._own_passes.weights)
        return logits

    def logits(self, images: Tensor) -> Tensor:
        self.leader.rows = len(images)
        with self.leader.asking(Asked.forward) as link:
            link.spread(parameters_to_vector(self.model.parameters()).detach())
            own = self._own_passes.forward(link.send_parts(images))
            return link.joined(own, len(images))

    def gradients(self, gradient: Tensor) -> list[Tensor | None]:
        passes = self._own_passes
        with self.leader.asking(Asked.backward) as link:
            own = passes.backward(link.send_parts(gradient))
            # ∂L/∂θ = Σ_processes Σ_{i of the process} ∂L/∂z_i · ∂z_i/∂θ
            total = link.add(passes.flat(own))
        each = total.split([weight.numel() for weight in passes.weights])
        return [
            None if mine is None else piece.view_as(weight)
            for weight, mine, piece in zip(passes.weights, own, each, strict=True)
        ]


class _Passes(torch.autograd.Function):
    """The passes of a `_Shared` as one operation on the weights."""

    @staticmethod
    def forward(ctx: Any, shared: _Shared, images: Tensor, *weights: Tensor) -> Tensor:
        ctx.shared = shared
        return shared.logits(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.shared.gradients(gradient)


class _JoinedCapture(Capture):
    """A capture of the rows of all processes, in the order of the batch."""

    def __init__(self, model: nn.Module, leader: Leader) -> None:
        super().__init__(model)
        self._leader = leader

    def __enter__(self) -> "_JoinedCapture":
        super().__enter__()
        self._leader.captures += 1
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._leader.captures -= 1

    def take(self) -> dict[str, list[Factors]]:
        own, rows = super().take(), self._leader.rows
        with self._leader.asking(Asked.factors) as link:
            return {
                name: [Factors(link.joined(use.a, rows), link.joined(use.b, rows)) for use in uses]
                for name, uses in own.items()
            }


class Follower:
    """Another process than the first, which does the tasks that it is given."""

    def __init__(self, link: Link, device: torch.device) -> None:
        self._link, self._device = link, device
        self._capture: Capture | None = None

    def follow(self) -> None:
        """Do all tasks until the last."""
        tasks = {
            Asked.hold: self._hold,
            Asked.forward: self._forward,
            Asked.backward: self._backward,
            Asked.factors: self._factors,
        }
        while (heard := self._link.hear())[0] is not Asked.end:
            task, rows = heard
            tasks[task](self._link.part(self._link.rank, rows))

    def _hold(self, rows: int) -> None:
        model, bf16, self._shape, captured = handed_out()
        self._own_passes = OwnPasses(model.to(self._device), bf16)
        self._capture = Capture(model).__enter__() if captured else None

    def _forward(self, rows: int) -> None:
        weights = list(self._own_passes.model.parameters())
        vector_to_parameters(self._link.spread(parameters_to_vector(weights).detach()), weights)
        images = self._link.receive(torch.empty(rows, *self._shape, device=self._device))
        if rows:
            self._logits = self._own_passes.forward(images)
            self._link.send(self._logits)

    def _backward(self, rows: int) -> None:
        passes = self._own_passes
        gradients: Sequence[Tensor | None] = [None] * len(passes.weights)
        if rows:
            gradients = passes.backward(self._link.receive(torch.empty_like(self._logits)))
        self._link.add(passes.flat(gradients))
        # for all captures of the first process, which take the factors one after another
        self._taken = self._capture.take() if self._capture and rows else {}

    def _factors(self, rows: int) -> None:
        for uses in self._taken.values():
            for use in uses:
                self._link.send(use.a)
                self._link.send(use.b)


def refuse_other_hooks(model: nn.Module, captures: int) -> None:
    """Raise UserError if a hook watches a layer besides those of so many captures."""
    for name, module in model.named_modules():
        others = len(module._forward_hooks) - captures, len(module._forward_pre_hooks)
        if max(*others, len(module._backward_hooks), len(module._backward_pre_hooks)) > 0:
            raise UserError(
                f"a hook watches {name or 'the model'}, and each process of torchrun sees a part of the "
                "rows: start without torchrun, or without the recorder that does so"
            )


def refuse_coupled_rows(model: nn.Module, image: Tensor, bf16: bool) -> None:
    """Raise UserError if the logits of a row depend on other rows, or on random numbers.

    `image` (1, C, H, W) is a row on the model's device. The model may be changed.
    """
    for name, module in model.named_modules():
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch_norm and (module.training or module.running_mean is None):
            raise UserError(
                f"{name} is a BatchNorm, which couples the rows of a batch, and each process of "
                "torchrun sees a part of them: start without torchrun, or use GroupNorm"
            )
    cuda = [image.device] if image.is_cuda else []
    with torch.random.fork_rng(devices=cuda), torch.no_grad(), autocast(bf16, image.device):
        before = _random_states(image)
        model(image)
        if any(not torch.equal(*pair) for pair in zip(before, _random_states(image), strict=True)):
            raise UserError(
                "the model draws random numbers in training, as dropout does, and several processes "
                "would draw others than one: start without torchrun, or choose another model (model=…)"
            )


def _random_states(image: Tensor) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(image.device)] if image.is_cuda else states
