"""Influence: one Newton step, with the Fisher information of the retained rows as the Hessian."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from data.split import Batch, Pixels, Split
from methods.base import Problem
from methods.influence import Influence
from methods.weights.curvature import fisher_product, solved
from runner.plan import Plan
from tests.conftest import (
    close,
    conditions_of,
    only_batch,
    original_of,
    plan_of,
    problem_of,
    same,
    stages_of,
    unlearned_of,
)

Quick = Callable[..., Plan]

# The method with its own numbers, but an exact solution.
EXACT = ["method=influence", "method.rounds=200", "method.tolerance=1e-9"]


def influence(*overrides: str) -> Influence:
    method = plan_of(*EXACT, *overrides).method
    assert isinstance(method, Influence)
    return method


def gradients(model: nn.Module, batch: Batch) -> Tensor:
    """Return the gradient of every row, (B, M), from a backward pass of its own."""
    found = []
    for image, label in zip(batch.images, batch.labels, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        found.append(parameters_to_vector(torch.autograd.grad(loss, list(model.parameters()))))
    return torch.stack(found).detach()


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def rows(count: int, seed: int) -> Split:
    """Return random images of 2×2 pixels, and labels of two classes."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 2, 2), generator=rng, dtype=torch.uint8)
    labels = torch.randint(2, (count,), generator=rng)
    return Split(images, labels, torch.arange(count), Pixels((0.5,), (0.25,)))


def test_a_product_with_the_fisher_information_is_that_of_the_matrix() -> None:
    model, batch = small_net(), only_batch(rows(7, seed=1))
    vector = torch.linspace(-1, 1, 23)
    g = gradients(model, batch)
    assert close(fisher_product(model, batch, vector), g.T @ (g @ vector))


def test_the_solution_is_the_woodbury_identitys() -> None:
    """(λI + GᵀG/S)⁻¹v = (v − Gᵀ(λS·I + GGᵀ)⁻¹Gv)/λ, which WoodFisher's recursion builds row by row."""
    rng = torch.Generator().manual_seed(0)
    g = torch.randn(6, 40, generator=rng, dtype=torch.float64)
    v = torch.randn(40, generator=rng, dtype=torch.float64)
    found, residual = solved(lambda x: 0.1 * x + g.T @ (g @ x) / 6, v, 7, 1e-12)
    inner = 0.1 * 6 * torch.eye(6, dtype=torch.float64) + g @ g.T
    assert close(found, (v - g.T @ torch.linalg.solve(inner, g @ v)) / 0.1, rel=1e-9)
    assert residual < 1e-9


def test_the_search_ends_after_its_rounds_and_says_how_near_it_came() -> None:
    matrix = torch.diag(torch.tensor([1.0, 100.0]))
    v = torch.tensor([1.0, 1.0])
    found, residual = solved(lambda x: matrix @ x, v, 1, 1e-9)
    # steepest descent from 0: α = vᵀv / vᵀAv
    assert close(found, v * 2 / 101)
    assert residual == pytest.approx(float((v - matrix @ found).norm() / v.norm()))
    assert solved(lambda x: matrix @ x, torch.zeros(2), 5, 1e-3)[1] == 0


def problem(model: nn.Module, forget: Split, retain: Split, budget: int | None = None) -> Problem:
    """Return a problem with only the parts that the method reads."""
    nothing: Callable[..., nn.Module] = lambda *args: pytest.fail("not read")  # noqa: E731
    return Problem(
        model, nothing, nothing, nothing, 2, conditions_of(plan_of(), budget),
        lambda *args: pytest.fail("not read"), forget.rows, forget, retain,
    )  # fmt: skip


def test_the_step_is_the_formula() -> None:
    """θ_o + α(λI + F)⁻¹(ḡ_f − ḡ_r), in batches of any size."""
    model, forget, retain = small_net(), rows(5, seed=2), rows(9, seed=3)
    before = parameters_to_vector(model.parameters()).detach().double()
    f, r = (gradients(model, only_batch(part)).double() for part in (forget, retain))
    fisher = 0.3 * torch.eye(23) + r.T @ r / 9
    wanted = before + 2 * torch.linalg.solve(fisher, f.mean(0) - r.mean(0))
    method = influence("method.strength=2", "method.damping=0.3", "method.batch_size=4")
    made = method.unlearn(problem(model, forget, retain))
    assert close(parameters_to_vector(made.parameters()).detach().double(), wanted)


def paired(count: int, seed: int) -> tuple[Split, Tensor]:
    """Return images that each occur once in both classes, and their features (2·count, 4).

    The first half has the labels 0, the second 1. A linear model of cross-entropy has its optimum at 0.
    """
    images = rows(count, seed)
    twice = images.joined(replace(images, rows=images.rows + count))
    labels = torch.arange(2).repeat_interleave(count)
    both = twice.relabelled(labels)
    return both, only_batch(both).images.flatten(1).double()


def leave_out(x: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """Return w = w₁ − w₀ at the minimum of mean CE + penalty·(‖w₀‖² + ‖w₁‖²)/2, by Newton's method."""
    w = torch.zeros(4, dtype=torch.float64)
    for _ in range(30):
        p = (x @ w).sigmoid()
        gradient = x.T @ (p - labels) / len(x) + penalty * w / 2
        hessian = x.T @ (x * (p * (1 - p))[:, None]) / len(x) + penalty * torch.eye(4) / 2
        w = w - torch.linalg.solve(hessian, gradient)
    return w


def newton_step(both: Split, out: int, penalty: float) -> Tensor:
    """Return w₁ − w₀ of a linear model at its optimum 0 after forgetting the first `out` rows."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    nn.init.zeros_(model[1].weight)
    forget, retain = both.take(torch.arange(out)), both.take(torch.arange(out, len(both)))
    share = out / len(both)  # α = |D_f|/|D|
    method = influence(f"method.strength={share}", f"method.damping={penalty}")
    weight = method.unlearn(problem(model, forget, retain)).get_parameter("1.weight").detach().double()
    return weight[1] - weight[0]


def test_one_newton_step_is_the_leave_out_solution_of_ridge_regression() -> None:
    """At θ = 0 the squared gradient of each row is its curvature, p(1 − p) = ¼, and CE is to second
    order a ridge regression of the targets ±2 with weights ¼: (XᵀX/4n + λ/2)w = Xᵀ(y − ½)/n."""
    both, x = paired(40, seed=4)
    left, labels = x[6:], both.labels[6:].double()
    matrix = left.T @ left / (4 * len(left)) + 0.5 / 2 * torch.eye(4)
    ridge = torch.linalg.solve(matrix, left.T @ (labels - 0.5) / len(left))
    assert close(newton_step(both, 6, 0.5), ridge)


def test_one_newton_step_is_the_leave_out_solution_up_to_second_order() -> None:
    """Half as many forgotten rows leave at most a quarter of the error."""
    both, _ = paired(40, seed=4)
    same_row = both.images[:1].expand(8, -1, -1, -1)
    images = both.images.clone()
    images[:8], images[40:48] = same_row, same_row  # so that every forgotten row pulls the same way
    both = replace(both, images=images)
    x = only_batch(both).images.flatten(1).double()
    errors, steps = [], []
    for out in (8, 4):
        exact = leave_out(x[out:], both.labels[out:].double(), 0.5)
        errors.append(float((newton_step(both, out, 0.5) - exact).norm()))
        steps.append(float(exact.norm()))
    assert errors[0] < 0.1 * steps[0]
    assert errors[1] < errors[0] / 4


def test_a_budget_that_ends_before_the_step_is_known_moves_nothing(quick: Quick) -> None:
    stages = stages_of(quick("method=influence", "budget.gradient_examples=250"))
    assert same(unlearned_of(stages), original_of(stages))


def test_strength_zero_leaves_the_original(quick: Quick) -> None:
    stages = stages_of(quick("method=influence", "method.strength=0"))
    assert same(unlearned_of(stages), original_of(stages))


def test_the_residual_is_logged(quick: Quick) -> None:
    stages, log = stages_of(quick("method=influence")), []
    given = problem_of(stages, log=log)
    stages.plan.method.unlearn(given)
    assert 0 <= log[0]["residual"] <= 0.001
