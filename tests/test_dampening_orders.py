"""SSD and ASSD as their authors' code measures: its order of batches, and I_D over retained rows."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from data.component import identity_of
from data.errors import UserError
from data.split import Pixels, Split
from data.streams import Streams
from methods.assd import ASSD, Against, Squared, ratio_at
from methods.base import Problem
from methods.families.dampening import dampen, measured
from methods.ssd import _ORDERS, Order
from methods.training.cost import Meter
from methods.training.loop import Conditions
from methods.weights.importance import Importance, batch_fisher, per_sample_fisher, training_fisher
from runner.plan import Plan
from tests.conftest import original_of, plan_of, same, stages_of, unlearned_of

Quick = Callable[..., Plan]
LEARNED = ["training.epochs=30", "training.lr=0.05"]


class Means(nn.Module):
    """A model of one weight w = 0. A row of pixel g has the gradient −g: its logits (gw, −gw) under
    label 0 lose log(1 + e^(−2gw))."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        slopes = images[:, 0, 0, 0] * self.weight
        return torch.stack([slopes, -slopes], 1)


def rows(numbers: list[int], values: list[int]) -> Split:
    """Rows of one pixel under label 0; a row's value is the size of its gradient."""
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)
    labels = torch.zeros(len(values), dtype=torch.int64)
    return Split(images, labels, torch.tensor(numbers), Pixels((0.0,), (1 / 255,)))


def problem_of(forget: Split, retain: Split, budget: int | None = None) -> Problem:
    conditions = Conditions(
        Streams(0, "test"), Meter(torch.device("cpu"), budget), lambda values: None, plan_of().recipe
    )
    model = Means()
    return Problem(
        model, lambda: model, lambda streams: model, lambda streams: model, 2, conditions,
        None, forget.rows, forget, retain,  # type: ignore[arg-type]
    )  # fmt: skip


def importances(problem: Problem, order: Order, size: int) -> tuple[float, float]:
    forget, everything = _ORDERS[order](problem, batch_fisher, size)
    return forget.mean("weight").item(), everything.mean("weight").item()


def test_one_pass_cuts_the_forgotten_rows_into_other_batches() -> None:
    """Closed form: three retained rows of gradient 0, four forgotten ones of 1, 3, 5 and 7, and B = 2.

    I_f = (2² + 6²)/2 = 20. Apart, D has 2 + 2 batches: I_D = 40/4 = 10, so that I_f/I_D = 2 is the bound
    of batches. In one pass D's batches are 00, 01, 35, 7: I_D = (0.5² + 4² + 7²)/4 = 16.3125.
    """
    forget, rest = rows([3, 4, 5, 6], [1, 3, 5, 7]), rows([0, 1, 2], [0, 0, 0])
    assert importances(problem_of(forget, rest), Order.apart, 2) == (20, 10)
    for order in (Order.by_class, Order.shuffled):
        assert importances(problem_of(forget, rest), order, 2) == (20, 16.3125)


def test_weights_beyond_the_bound_are_selected_in_one_pass_alone() -> None:
    """Closed form: forgotten rows of gradients 4, 4, 0 and 0 after one retained row of 0, and B = 2.

    I_f = (4² + 0²)/2 = 8. Apart I_D = 16/3. In one pass the batches are 04, 40, 0: I_D = 8/3, and
    I_f/I_D = 3 exceeds the 3/2 that the bound of batches allows.
    """
    forget, rest = rows([1, 2, 3, 4], [4, 4, 0, 0]), rows([0], [0])
    apart, once = (problem_of(forget, rest) for _ in range(2))
    assert importances(apart, Order.apart, 2) == pytest.approx((8, 16 / 3))
    assert importances(once, Order.by_class, 2) == pytest.approx((8, 8 / 3))
    for order, selected in ((Order.apart, 0), (Order.by_class, 1)):
        problem = problem_of(forget, rest)
        found = _ORDERS[order](problem, batch_fisher, 2)
        assert dampen(problem.model, *found, alpha=2, dampening=1) == selected


def test_one_pass_over_aligned_batches_is_what_two_parts_are() -> None:
    forget, rest = rows([4, 5, 6], [1, 3, 5]), rows([0, 1, 2, 3], [2, 4, 6, 9])
    apart = importances(problem_of(forget, rest), Order.apart, 2)
    assert importances(problem_of(forget, rest), Order.by_class, 2) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("forgotten", "order"), [(2, [0, 2, 1, 3, 4, 5]), (1, [0, 3, 1, 2, 4, 5])], ids=["whole", "part"]
)
def test_one_pass_goes_class_by_class_and_by_fine_class_if_a_part_of_a_class_goes(
    forgotten: int, order: list[int]
) -> None:
    labels, fine = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 0])
    rest = replace(rows([0, 1, 2, 3], [1, 3, 5, 7]), labels=labels, fine=fine)
    forget = replace(rows([4, 5], [0, 0]), labels=torch.full((2,), forgotten), fine=torch.tensor([9, 9]))
    seen = []

    def measure(model: nn.Module, split: Split, size: int, conditions: Conditions) -> Importance:
        seen.append(split.rows.tolist())
        return Importance({}, 0)

    _ORDERS[Order.by_class](problem_of(forget, rest), measure, 2)
    assert seen == [[4, 5], order]


def test_a_pass_that_the_budget_cuts_still_holds_the_forgotten_rows() -> None:
    """4 rows for D_f and 4 of the 6 for D: without D_f in it, I_D would be 0 and blank the weight."""
    forget, rest = rows([4, 5, 6, 7], [1, 3, 5, 7]), rows([0, 1, 2, 3], [0, 0, 0, 0])
    problem = problem_of(forget, rest, budget=8)
    assert importances(problem, Order.by_class, 2) == (20, 10)
    assert problem.conditions.meter.cost.gradient_examples == 8


def test_the_default_order_is_in_no_identity_and_others_are() -> None:
    batch = ["method=ssd", "method.fisher=batch"]
    plain = plan_of(*batch).method
    assert list(identity_of(plain)) == ["class", "version", "alpha", "dampening", "fisher", "batch_size"]
    keys = {plan_of(*batch, f"method.order={order.name}").key for order in Order}
    assert len(keys) == 3
    with pytest.raises(UserError, match=r"set method\.fisher=batch, or method\.order=apart"):
        plan_of("method=ssd", "method.order=by_class")


def test_the_bound_is_warned_of_only_while_it_holds(
    quick: Quick, caplog: pytest.LogCaptureFixture
) -> None:
    """180 retained rows: a multiple of 20, not of 16."""
    options = ["method=ssd", "method.fisher=batch", "method.alpha=100"]
    for order, size, warned in (("apart", 16, True), ("by_class", 16, False), ("by_class", 20, True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            plan = quick(*options, f"method.order={order}", f"method.batch_size={size}")
            _ = stages_of(plan).request
        assert ("selects no weight" in caplog.text) == warned


# ASSD


def test_the_notebooks_threshold_is_over_the_retained_rows(quick: Quick) -> None:
    """With x = I_f/I_D of a share s of rows, y = I_f/I_r is x(1 − s)/(1 − s·x): the ranks stay."""
    found = {}
    for against in ("all", "retained"):
        stages = stages_of(quick(*LEARNED, "method=assd", f"method.against={against}"))
        (point,) = stages.unlearn(stages.pretrain()).read("curves.json")
        found[against] = point
    x, s = found["all"]["alpha"], 0.1
    assert x < 1 / s
    assert found["retained"]["alpha"] == pytest.approx(x * (1 - s) / (1 - s * x), rel=1e-3)


@pytest.mark.parametrize("fisher", ["per_sample", "batch"])
def test_a_notebook_whose_budget_measures_no_retained_row_moves_nothing(
    quick: Quick, fisher: str
) -> None:
    chosen = ["method=assd", f"method.fisher={fisher}", "method.against=retained"]
    stages = stages_of(quick(*chosen, "budget.gradient_examples=20"))  # the rows to forget would fit
    assert same(unlearned_of(stages), original_of(stages))


def test_weights_that_no_retained_row_moves_are_left_out_of_the_percentile() -> None:
    forget = Importance({"w": torch.tensor([1.0, 2.0, 3.0, 9.0, 0.0])}, 1)
    retained = Importance({"w": torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])}, 1)
    assert [ratio_at(forget, retained, p) for p in (0, 50, 100)] == [0, 1, 3]
    layer = nn.Linear(5, 1, bias=False)
    layer.weight.data = torch.ones(1, 5)
    forget, retained = (
        Importance({"weight": part.sums["w"].view(1, 5)}, 1) for part in (forget, retained)
    )
    dampen(layer, forget, retained, alpha=2, dampening=1)
    assert torch.allclose(layer.weight, torch.tensor([[1, 1, 1 / 3, 0, 1]]))


def test_assd_warns_if_all_weights_that_it_would_select_share_the_largest_ratio(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A weight that matters to two forgotten rows of five alone has the ratio 5/2, and stays."""
    problem = problem_of(rows([3, 4], [1, 3]), rows([0, 1, 2], [0, 0, 0]))
    method = ASSD(0.5, Squared.per_sample, Against.all, 64)
    problem.model.weight.data.fill_(1.0)
    assert method.unlearn(problem).weight == 1
    assert "method=assd selects no weight" in caplog.text and "largest ratio, 2.5; choose" in caplog.text


def test_the_notebooks_options_are_in_the_identity_and_its_defaults_are_not() -> None:
    plain = plan_of("method=assd")
    assert list(identity_of(plain.method)) == ["class", "version", "dampening", "batch_size"]
    keys = {
        plan_of("method=assd", f"method.fisher={fisher}", f"method.against={against}").key
        for fisher in ("per_sample", "batch", "training_batch")
        for against in ("all", "retained")
    }
    assert len(keys) == 6 and plain.key in keys


def test_training_mode_uses_the_statistics_of_the_batch() -> None:
    """A batch norm makes −1 and 1 of the pixels 2 and 6 in training mode, and leaves them otherwise."""

    class Normed(Means):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(self.norm(images))

    split = rows([0, 1], [2, 6])
    problem = problem_of(split, split)
    found = {}
    for measure in (batch_fisher, training_fisher):
        model = Normed()
        found[measure] = measure(model, split, 2, problem.conditions).mean("weight").item()
    assert found[batch_fisher] == pytest.approx(16, rel=1e-4)
    assert found[training_fisher] == pytest.approx(0, abs=1e-6)


def test_parts_measured_apart_are_unchanged() -> None:
    """The default adds D_f's sum to the rest's, as before there was an order."""
    forget, rest = rows([3, 4], [1, 3]), rows([0, 1, 2], [2, 4, 6])
    own, everything = measured(problem_of(forget, rest), per_sample_fisher, 2)
    alone = problem_of(forget, rest)
    wanted = per_sample_fisher(alone.model, rest, 2, alone.conditions).sums["weight"]
    assert torch.equal(everything.sums["weight"], wanted + own.sums["weight"])
