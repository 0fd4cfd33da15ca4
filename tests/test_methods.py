"""What every method must do, for every file in conf/method."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.errors import UserError
from methods.base import Access, Undeclared
from methods.training.loop import CURVES
from runner.flags import CLAMPED, CUT
from runner.plan import Plan
from runner.report import Report
from runner.tracking.sections import PASS
from tests.conftest import (
    METHODS,
    checksum_of,
    class_of,
    original_of,
    problem_of,
    result_of,
    same,
    stages_of,
    unlearned_of,
    weights_file,
)

QuickMethod = Callable[..., Plan]
Quick = Callable[..., Plan]

# Methods that may see no forgotten row.
BLIND = [method for method in METHODS if class_of(method).access in (Access.NOTHING, Access.RETAIN)]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_sees_what_it_declares_and_nothing_else(quick_method: QuickMethod, method: str) -> None:
    stages = stages_of(quick_method(method))
    access = stages.plan.method.sees()
    problem = problem_of(stages)
    rows = stages.request.rows
    if Access.FORGET in access:
        assert torch.equal(problem.forget.rows, rows)
    else:
        with pytest.raises(Undeclared, match=r"add Access\.FORGET"):
            _ = problem.forget
    if Access.RETAIN not in access:
        with pytest.raises(Undeclared, match=r"add Access\.RETAIN"):
            _ = problem.retain
        return
    relabelled = stages.request.target is not None
    assert torch.isin(rows, problem.retain.rows).all() == relabelled
    assert torch.isin(problem.retain.rows, rows).any() == relabelled
    assert len(problem.retain) + (0 if relabelled else len(rows)) == len(stages.dataset.train)
    assert len(problem.rest) + len(rows) == len(stages.dataset.train)


@pytest.mark.parametrize("method", METHODS)
def test_the_original_stays_as_it_was(quick_method: QuickMethod, method: str) -> None:
    stages = stages_of(quick_method(method))
    original = stages.pretrain()
    unlearned_of(stages)
    assert original.damage() is None


@pytest.mark.parametrize("method", METHODS)
def test_a_method_logs_what_it_declares_and_nothing_else(quick_method: QuickMethod, method: str) -> None:
    stages = stages_of(quick_method(method, "evaluation=quick", "evaluation.every=1"))
    points = stages.unlearn(stages.pretrain()).read("curves.json")
    logged = {name for point in points if PASS not in point for name in point}
    assert logged <= {*CURVES, *stages.plan.method.logs, CUT, CLAMPED}
    # a method that stops early may end within its first pass
    assert stages.plan.method.makes_passes or not any(PASS in point for point in points)
    log = problem_of(stages).conditions.log
    with pytest.raises(Undeclared, match="it logs other, and does not declare it: add 'other' to its"):
        log({"epoch": 1, "other": 2})


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits(
    quick_method: QuickMethod, method: str, tmp_path: Path
) -> None:
    first = unlearned_of(stages_of(quick_method(method)))
    again = unlearned_of(stages_of(quick_method(method, f"paths.root={tmp_path / 'again'}")))
    other = unlearned_of(stages_of(quick_method(method, "seed=1")))
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("method", METHODS)
def test_the_budget_is_kept(quick_method: QuickMethod, method: str) -> None:
    stages = stages_of(quick_method(method, "budget.gradient_examples=50"))
    made = stages.unlearn(stages.pretrain())
    assert made.read("cost.json")["gradient_examples"] <= 50


def test_a_result_says_that_the_budget_cut_its_method_short(quick_method: QuickMethod) -> None:
    for budget, cut in ((50, True), (270, False)):
        result = result_of(quick_method("finetune", f"budget.gradient_examples={budget}"))
        assert ("cut_by_budget" in result.costs["unlearned"]) == cut
        words = "cut short by budget.gradient_examples: finetune (seed 0)"
        assert (words in Report([result], ["test_accuracy"]).terminal()) == cut


@pytest.mark.parametrize(("method", "budget"), [("fisher_forgetting", 50), ("msg", 12)])
def test_a_method_that_could_not_measure_all_that_it_needs_moves_nothing(
    quick_method: QuickMethod, method: str, budget: int
) -> None:
    stages = stages_of(quick_method(method, f"budget.gradient_examples={budget}"))
    assert same(unlearned_of(stages), original_of(stages))


def test_no_neuron_fades_for_a_round_that_the_budget_leaves_untrained(
    quick_method: QuickMethod,
) -> None:
    """The first of three rounds spends it."""
    made = [
        unlearned_of(
            stages_of(
                quick_method("forgetting_layers", "budget.gradient_examples=50", f"method.{rounds}")
            )
        )
        for rounds in ("rounds=1", "rounds=3")
    ]
    assert same(*made)


@pytest.mark.parametrize("method", BLIND)
def test_poisoned_forget_rows_change_nothing_for_a_method_that_may_not_see_them(
    quick_method: QuickMethod, method: str, tmp_path: Path
) -> None:
    """The original, and a record of its training, are made of the clean rows."""
    clean = stages_of(quick_method(method))
    original = clean.pretrain()
    expected = checksum_of(clean.unlearn(original))
    (clean.plan.root / "store" / "unlearn").rename(tmp_path / "clean")
    poisoned = stages_of(quick_method(method))
    train = poisoned.dataset.train
    where = torch.isin(train.rows, poisoned.request.rows)
    train.images[where] = 255 - train.images[where]
    train.labels[where] = 0
    assert checksum_of(poisoned.unlearn(original)) == expected


@pytest.mark.parametrize("method", ["bad_teacher", "exact_k"])
def test_a_random_model_is_random_beside_a_file_of_weights(
    quick: Quick, quick_method: QuickMethod, method: str
) -> None:
    """If the original began with a file, a randomly initialised model does not hold its weights."""
    file = weights_file(stages_of(quick("training.epochs=3", "training.lr=0.05")).pretrain())
    given = [f"model.weights={file}", f"model.sha256={sha256(file.read_bytes()).hexdigest()}"]
    stages = stages_of(quick_method(method, *given))
    problem, streams = problem_of(stages), stages.streams("unlearn")
    begun = problem.fresh(streams).state_dict()
    drawn = problem.randomly_initialised(streams).state_dict()
    weights = load_file(file)
    assert same(begun, weights)
    assert not any(torch.equal(drawn[name], weights[name]) for name in weights)
    problem.fresh = lambda streams: pytest.fail("the file is no random model")
    stages.plan.method.unlearn(problem)


def test_a_recipe_s_batch_larger_than_its_rows_is_refused_before_pretraining(quick: Quick) -> None:
    """A method's batch is clamped, and remarked; that of the recipe decides what the original is."""
    for overrides, words in (
        (["training.batch_size=201"], "the training set, which has 200 rows"),
        (["training.batch_size=190", "method=original"], "the retained part, which has 180 rows"),
        (
            ["training.batch_size=190", "method=retrain", "evaluation=quick"],
            "the retained part, which has 180 rows",
        ),
    ):
        stages = stages_of(quick(*overrides))
        with pytest.raises(UserError) as refused:
            _ = stages.request
        assert words in str(refused.value)
        assert not (stages.plan.root / "store" / "pretrain").exists()
