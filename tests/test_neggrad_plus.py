"""NegGrad+ follows the code of its authors, and the options of its former rule still give that rule."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.split import Batch, Split
from data.streams import Streams
from methods.base import Problem
from methods.negative_gradient_plus import NegativeGradientPlus
from methods.training.cost import Meter, pass_streams
from methods.training.loop import Conditions
from runner.plan import Plan
from tests.conftest import plan_of, stages_of

Quick = Callable[..., Plan]

# The options that give the rule that this method had before it followed its authors' code.
FORMER = [
    "method.momentum=0.9", "method.weight_decay=0.0005", "method.penalty=0",
    "method.evaluation_mode=false",
]  # fmt: skip
TRAINED = ["training.epochs=30", "training.lr=0.05", "method.batch_size=8", "method.epochs=5"]


def problem_of(plan: Plan) -> Problem:
    """Return the run's problem, its model followed by dropout, which shows the mode."""
    stages = stages_of(plan)
    conditions = Conditions(Streams(0, "test"), Meter(torch.device("cpu")), lambda _: None, plan.recipe)
    problem = stages.problem(plan.method, stages.pretrain(), conditions)
    problem.model = nn.Sequential(problem.model, nn.Dropout(0.5))
    return problem


def passes(split: Split, size: int, streams: Streams) -> Iterator[list[Batch]]:
    """Yield one list of batches for every shuffled pass."""
    order, augment = pass_streams(streams)
    while True:
        yield list(split.batches(size, order, augment))


def theirs(problem: Problem, method: NegativeGradientPlus) -> nn.Module:
    """Train by `run_neggrad_epoch` of the authors' notebook: one loss, its gradient, one plain step."""
    model, start = problem.model, deepcopy(problem.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=method.lr, weight_decay=0)
    streams = problem.conditions.streams
    retained = passes(problem.retain, method.batch_size, streams)
    forgotten = chain.from_iterable(passes(problem.forget, method.batch_size, streams.part("forget")))
    model.eval()
    for _ in range(method.epochs):
        for keep, forget in zip(next(retained), forgotten, strict=False):
            pairs = zip(model.parameters(), start.parameters(), strict=True)
            distance = torch.stack([(moved - old).square().sum() for moved, old in pairs]).sum()
            kept = F.cross_entropy(model(keep.images), keep.labels) + 0.1 / 2 * distance
            lost = F.cross_entropy(model(forget.images), forget.labels)
            optimizer.zero_grad()
            (0.95 * kept - 0.05 * lost).backward()
            optimizer.step()
    return model


def forget_loss(model: nn.Module, problem: Problem) -> float:
    model.eval()
    (batch,) = problem.forget.batches(len(problem.forget))
    with torch.no_grad():
        return F.cross_entropy(model(batch.images), batch.labels).item()


def test_the_default_without_clipping_is_the_authors_rule(quick: Quick) -> None:
    plan = quick("method=negative_gradient_plus", "method.clip=null", *TRAINED)
    method = plan.method
    assert isinstance(method, NegativeGradientPlus)
    a, b = problem_of(plan), problem_of(plan)
    ours, reference = method.unlearn(a), theirs(b, method)
    for name, value in reference.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, atol=1e-5), name
    assert forget_loss(ours, a) == pytest.approx(forget_loss(reference, b), rel=1e-3)


def test_the_former_rule_climbs_elsewhere(quick: Quick) -> None:
    """The fault: momentum, weight decay and training mode were said to be the authors'."""
    plan, former = (quick("method=negative_gradient_plus", *TRAINED, *more) for more in ([], FORMER))
    a, b = problem_of(plan), problem_of(former)
    ours, before = plan.method.unlearn(a), former.method.unlearn(b)
    assert forget_loss(before, b) != pytest.approx(forget_loss(ours, a), rel=0.1)


@pytest.mark.parametrize(("evaluation_mode", "modes"), [("true", {False}), ("false", {True})])
def test_both_batches_pass_in_the_chosen_mode(
    quick: Quick, evaluation_mode: str, modes: set[bool]
) -> None:
    options = ["method.batch_size=8", "method.epochs=2", f"method.evaluation_mode={evaluation_mode}"]
    plan = quick("method=negative_gradient_plus", *options)
    problem, seen = problem_of(plan), set()

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.add(module.training)

    problem.model[1].register_forward_pre_hook(look)  # type: ignore[index]
    plan.method.unlearn(problem)
    assert seen == modes


def test_results_of_the_former_rule_keep_their_keys() -> None:
    """Keys of c702b8d, where the options that are zero or false today did not exist."""
    method = "method=negative_gradient_plus"
    assert plan_of(method, *FORMER).key == "aea130327cbb8baa"
    searched = {("mnist", 0.003): "f9e08be258f244b0", ("cifar20", 0.001): "b2bf0c6a1e97fdfd"}
    for (dataset, lr), key in searched.items():
        found = [f"dataset={dataset}", "model=small_cnn", "method.epochs=3", f"method.lr={lr}"]
        assert plan_of(method, *FORMER, *found).key == key
    changed = [[], ["method.penalty=0"], ["method.evaluation_mode=false"]]
    assert len({plan_of(method, *options).key for options in changed}) == 3
