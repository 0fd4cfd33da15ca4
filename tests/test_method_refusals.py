"""Methods refuse numbers and requests that they cannot serve, before any training."""

from collections.abc import Callable

import pytest

from data.errors import UserError
from runner.pipeline import run
from runner.plan import Plan
from tests.conftest import plan_of, stages_of

Quick = Callable[..., Plan]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method=bad_teacher method.retain_fraction=1.5", "method.retain_fraction=1.5"),
        ("method=bad_teacher method.temperature=0", "method.temperature=0"),
        ("method=dual_phase_ascent method.factor=-1", "method.factor=-1"),
        ("method=uniform_labels method.factor=nan", "method.factor=nan"),
        ("method=scrub method.kl_weight=-1", "method.kl_weight=-1"),
        ("method=scrub method.forget_batch_size=0", "method.forget_batch_size=0"),
        ("method=scrub method.rewind_error=2", "method.rewind_error=2"),
        ("method=salun method.share=0", "method.share=0"),
        ("method=negative_gradient_plus method.retain_weight=2", "method.retain_weight=2"),
        ("method=l1_sparse method.strength=-1", "method.strength=-1"),
        ("method=l1_sparse method.strength=3.5e38", "method.strength=3.5e+38"),
        ("method=l1_sparse method.free_epochs=11", "method.free_epochs=11"),
        ("method=boundary_shrink method.bound=0", "method.bound=0"),
        ("method=reverse_kl method.strength=inf", "method.strength=inf"),
        ("method=catastrophic_k method.layers=0", "method.layers=0"),
        ("method=exact_k method.layers=0", "method.layers=0"),
        ("method=unsir method.noise_copies=0", "method.noise_copies=0"),
        ("method=unsir method.repair_lr=-1", "method.repair_lr=-1"),
    ],
)
def test_senseless_numbers_are_refused(quick: Quick, override: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        quick(*override.split())
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=ssd", "method.alpha=-1"], "method.alpha=-1"),
        (["method=ssd", "method.dampening=nan"], "method.dampening=nan"),
        (["method=lfssd", "method.batch_size=0"], "method.batch_size=0"),
        (["method=fisher_forgetting", "method.cap=-1"], "method.cap=-1"),
        (["method=just_in_time", "method.noise=0"], "method.noise=0"),
        (["method=just_in_time", "method.samples=0"], "method.samples=0"),
        (["method=selective_finetune", "method.share=0"], "method.share=0"),
        (["method=selective_finetune", "method.penalty=-1"], "method.penalty=-1"),
        (["method=distillation_guided", "method.temperature=0"], "method.temperature=0"),
        (["method=distillation_guided", "method.teacher_widths=[8]"], "method.teacher_widths=[8]"),
        (["method=distillation_guided", "method.teacher_hidden=0"], "method.teacher_hidden=0"),
        (["method=rewind", "recorder=[checkpoints]", "method.epsilon=1e-6"], "at least 0.0001"),
        (["method=hessian_free", "recorder=[leave_one_out]", "method.epsilon=0"], "at least 0.0001"),
        (["method=forgetting_layers", "method.rounds=0"], "method.rounds=0"),
        (["method=forgetting_layers", "method.tau=0"], "method.tau=0"),
        (["method=distruction", "recorder=[bayesian]", "method.penalty=1.5"], "method.penalty=1.5"),
        (["method=distruction", "recorder=[bayesian]", "method.samples=0"], "method.samples=0"),
        (["method=distruction", "recorder=[bayesian]", "method.eta=-1"], "method.eta=-1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(*overrides)
    assert words in str(refused.value)


@pytest.mark.parametrize(("field", "value"), [("samples", 0), ("initial", 0), ("epochs", 0)])
def test_a_preparation_that_makes_no_sense_is_refused(quick: Quick, field: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"recorder\.bayesian\.{field}={value}"):
        quick("recorder=[bayesian]", f"recorder.bayesian.{field}={value}")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=salun", "method.share=1e-6", "method.batch_size=8"], "frees none of the"),
        (
            ["method=boundary_shrink", "scenario.classes=[0,1,2,3,4]", "method.batch_size=8"],
            "forget fewer than half",
        ),
        (
            ["method=boundary_expand", "scenario.classes=[0,1,2,3,4]", "method.batch_size=8"],
            "forget fewer than half",
        ),
        (["method=unsir", "scenario=random"], r"name the class to overwrite in method\.noise_classes"),
        (
            ["method=unsir", "method.noise_classes=[10]", "method.batch_size=8"],
            r"method\.noise_classes asks for class 10",
        ),
    ],
)
def test_what_a_method_cannot_serve_is_refused_before_pretraining(
    quick: Quick, overrides: list[str], words: str
) -> None:
    plan = quick(*overrides)
    with pytest.raises(UserError, match=words):
        run(plan)
    assert not list(plan.root.glob("store/pretrain/*"))


@pytest.mark.parametrize("method", ["catastrophic_k", "exact_k"])
def test_more_layers_than_there_are_are_refused_before_pretraining(quick: Quick, method: str) -> None:
    plan = quick(f"method={method}", "method.layers=5")
    with pytest.raises(UserError, match=r"method\.layers=4 or less"):
        run(plan)
    assert not list(plan.root.glob("store/pretrain/*"))


def test_a_request_that_relabels_nothing_is_refused(quick: Quick) -> None:
    for method in ("selective_finetune", "distillation_guided"):
        stages = stages_of(quick(f"method={method}"))
        with pytest.raises(UserError, match="choose scenario=relabel"):
            _ = stages.request
