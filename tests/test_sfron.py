"""SFRon: steps of weighted, masked ascent between steps of fine-tuning."""

import math
from collections.abc import Callable, Iterator
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.split import Batch, Split
from data.streams import Streams
from methods.base import Problem, accuracy
from methods.sfron import SFRon, weighted
from methods.training.cost import pass_streams
from runner.plan import Plan
from tests.conftest import LEARNED, cost_of, problem_of, same, stages_of, state_of, unlearned_of

Quick = Callable[..., Plan]

# 20 of 200 rows are forgotten in these runs, 180 retained: 23 batches of 8 in a pass over the retained.
FORGET, RETAIN, STEPS = 20, 180, 23
SMALL = ["method.batch_size=8", "method.epochs=2"]


def logits_of(losses: list[float]) -> Tensor:
    """Return logits of two classes whose cross-entropies with class 0 are these."""
    # ℓ = −log p with p = softmax((log p, log(1 − p)))
    p = (-torch.tensor(losses, dtype=torch.float64)).exp()
    return torch.stack([p.log(), (1 - p).log()], 1)


def test_rows_count_by_a_power_of_their_loss() -> None:
    logits, labels = logits_of([0.25, 1, 4]), torch.zeros(3, dtype=torch.long)
    # power 0 is the mean, power 1 the harmonic mean: every w_i ℓ_i is 1 / Σ 1/ℓ_j
    assert weighted(logits, labels, 0).item() == pytest.approx(5.25 / 3)
    assert weighted(logits, labels, 1).item() == pytest.approx(3 / (4 + 1 + 0.25))
    # ℓ^−½ = 2, 1, ½, so that Σ w_i ℓ_i = (2·¼ + 1·1 + ½·4) / 3.5
    assert weighted(logits, labels, 0.5).item() == pytest.approx(3.5 / 3.5)


def test_the_weights_of_rows_have_no_gradient() -> None:
    logits = logits_of([0.25, 1, 4]).requires_grad_()
    labels = torch.zeros(3, dtype=torch.long)
    (found,) = torch.autograd.grad(weighted(logits, labels, 0.5), logits)
    each = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), logits)[0]
    assert torch.allclose(found, each * torch.tensor([[2.0], [1.0], [0.5]]) / 3.5)


def test_a_row_without_loss_keeps_the_sum_finite() -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]])
    assert weighted(logits, torch.zeros(2, dtype=torch.long), 0.5).isfinite()


def test_without_ascent_it_is_fine_tuning(quick: Quick) -> None:
    chosen = [*SMALL, "method.lr=0.01", "method.schedule=cosine"]
    sfron = stages_of(quick("method=sfron", *chosen, "method.forget_weight=0"))
    tuned = stages_of(quick("method=finetune", *chosen))
    assert same(unlearned_of(sfron), unlearned_of(tuned))
    # F of both parts, and the passes over the retained rows
    assert cost_of(sfron)["gradient_examples"] == FORGET + RETAIN + 2 * RETAIN


def test_an_empty_mask_leaves_fine_tuning(quick: Quick) -> None:
    """Without momentum and weight decay, which act on masked weights too."""
    plain = [*SMALL, "method.lr=0.01", "method.schedule=cosine", "method.momentum=0"]
    plain.append("method.weight_decay=0")
    masked = stages_of(quick("method=sfron", *plain, "method.threshold=1e12"))
    assert same(unlearned_of(masked), unlearned_of(stages_of(quick("method=finetune", *plain))))
    assert not same(unlearned_of(masked), unlearned_of(stages_of(quick("method=sfron", *plain))))


def passes(split: Split, streams: Streams) -> Iterator[Batch]:
    """Yield batches of 8 of shuffled passes, without end."""
    order, augment = pass_streams(streams)
    return chain.from_iterable(iter(lambda: list(split.batches(8, order, augment)), None))


def fisher(model: nn.Module, split: Split) -> list[Tensor]:
    """Return the mean over batches of 8 of the squared gradient of their mean loss."""
    batches = list(split.batches(8))
    each = [
        torch.autograd.grad(F.cross_entropy(model(b.images), b.labels), list(model.parameters()))
        for b in batches
    ]
    return [torch.stack(parts).square().mean(0) for parts in zip(*each, strict=True)]


def by_hand(problem: Problem, method: SFRon) -> nn.Module:
    """Train by the card's update rule, in one plain loop."""
    model, streams = problem.model, problem.conditions.streams
    ratio = zip(fisher(model, problem.forget), fisher(model, problem.retain), strict=True)
    masks = [(forget + 1e-15) / (retain + 1e-15) >= method.threshold for forget, retain in ratio]
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4)
    retained, forgotten = passes(problem.retain, streams), passes(problem.forget, streams.part("forget"))
    for step in range(2 * STEPS):
        cosine = (1 + math.cos(math.pi * step / (2 * STEPS))) / 2
        optimizer.param_groups[0]["lr"] = method.lr * cosine
        if step % 3 == 0:
            batch = next(forgotten)
            losses = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
            shares = 1 / (losses.detach() ** 0.5 + 1e-15)
            optimizer.zero_grad()
            (-25 * cosine * (shares / shares.sum() * losses).sum()).backward()
            for parameter, mask in zip(model.parameters(), masks, strict=True):
                assert parameter.grad is not None
                parameter.grad *= mask
            nn.utils.clip_grad_norm_(model.parameters(), 7)
            optimizer.step()
        batch = next(retained)
        optimizer.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()
    return model


def test_it_is_its_update_rule(quick: Quick) -> None:
    stages = stages_of(quick("method=sfron", *SMALL, "training.epochs=5", "method.forget_every=3"))
    method = stages.plan.method
    assert isinstance(method, SFRon)
    wanted, problem = state_of(by_hand(problem_of(stages), method)), problem_of(stages)
    found = state_of(method.unlearn(problem))
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-4), name
    # at steps 0, 3, … 45 of 46: 16 batches, of 8, 8 and 4 rows in turns
    ascents = 5 * FORGET + 8
    spent = problem.conditions.meter.cost.gradient_examples
    assert spent == FORGET + RETAIN + 2 * RETAIN + ascents


def test_ascent_forgets_what_fine_tuning_does_not(quick: Quick) -> None:
    found = []
    for weight in (0, 25):
        options = ["method.batch_size=8", "method.lr=0.02", f"method.forget_weight={weight}"]
        stages = stages_of(quick("method=sfron", *LEARNED, *options))
        problem = problem_of(stages)
        model = stages.plan.method.unlearn(problem)
        assert accuracy(model, problem.retain, problem.conditions) > 0.95
        found.append(accuracy(model, problem.forget, problem.conditions))
    assert found[1] < found[0] - 0.15


def test_the_share_of_weights_that_the_ascent_may_move_is_logged(quick: Quick) -> None:
    def selected(threshold: str) -> float:
        options = [*SMALL, f"method.threshold={threshold}", "method.epochs=0"]
        logged: list[dict[str, float]] = []
        stages = stages_of(quick("method=sfron", *options))
        stages.plan.method.unlearn(problem_of(stages, log=logged))
        (point,) = logged
        return point["selected"]

    assert selected("0") == 1 and selected("1e12") == 0
    assert 0 < selected("10") < selected("1") < 1
