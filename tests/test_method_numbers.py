"""Numbers that methods used to accept, or to refuse with a traceback, and shards that are too small."""

import logging
from collections.abc import Callable

import pytest

from data.errors import UserError
from runner.plan import Plan
from tests.conftest import needs_record, plan_of, stages_of

Quick = Callable[..., Plan]
HUGE = "99999999999999999999"


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("per_sample_amnesiac", "strength", HUGE),
        ("per_sample_amnesiac", "strength", "1e30"),
        ("per_sample_amnesiac", "target", "1"),
        ("negative_gradient", "stop_loss", "0"),
        ("negative_gradient", "stop_loss", "-inf"),
        ("negative_gradient_plus", "penalty", "inf"),
        ("label_flip_partial", "keep_first", "0"),
        ("reverse_kl", "strengthen_epochs", HUGE),
        ("reverse_kl", "temperature", "1e-300"),
        ("scrub", "forget_batch_size", HUGE),
        ("scrub", "ascent_epochs", "-1"),
        ("selective_finetune", "share", "1.5"),
        ("sisa", "shards", HUGE),
        ("sisa", "slices", "0"),
        ("uniform_labels", "factor", "-0.1"),
        ("unsir", "noise_copies", HUGE),
        ("unsir", "noise_lr", "nan"),
    ],
)
def test_a_number_out_of_bounds_is_refused_by_the_name_of_its_option(
    method: str, option: str, value: str
) -> None:
    with pytest.raises(UserError, match=rf"method\.{option}=.*: it must be ") as refused:
        plan_of(f"method={method}", *needs_record(method), f"method.{option}={value}")
    assert "\n" not in str(refused.value)


def test_a_repair_recovers_a_share() -> None:
    with pytest.raises(UserError, match=r"repair\.recovered=2\.0: it must be at least 0 and at most 1"):
        plan_of("repair=recovered", "repair.recovered=2")


@pytest.mark.parametrize("stop_loss", ["inf", "1e9", "null", "0.5"])
def test_the_ascent_may_have_no_end_but_its_epochs(stop_loss: str) -> None:
    plan_of("method=negative_gradient", f"method.stop_loss={stop_loss}")


@pytest.mark.parametrize(("slices", "told"), [(2, False), (7, True)])
def test_sisa_says_once_that_its_slices_are_smaller_than_a_batch(
    quick: Quick, caplog: pytest.LogCaptureFixture, slices: int, told: bool
) -> None:
    """200 rows in 4 shards: 25 rows in each of 2 slices, 7 in each of 7."""
    sizes = ["method.shards=4", f"method.slices={slices}", "training.batch_size=10"]
    plan = quick("method=sisa", *sizes)
    with caplog.at_level(logging.WARNING):
        _ = stages_of(plan).request
    found = [record.getMessage() for record in caplog.records if "slice of SISA" in record.getMessage()]
    assert len(found) == told
    assert not told or "only 7 rows, fewer than training.batch_size=10" in found[0]
