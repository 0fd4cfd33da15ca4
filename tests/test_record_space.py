"""Records that do not fit on the disk: refused before training, with settings that fit."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import UserError
from methods.recording.estimates import largest_count, largest_share
from methods.recording.space import require_space
from runner.plan import Plan
from tests.conftest import stages_of
from tests.recording import training_of

Quick = Callable[..., Plan]

UPDATES = ["recorder=[batch_updates]", "training.batch_size=4"]
LAYERS = ["recorder=[layerwise]", "recorder.layerwise.keep_first=0.5"]
SAMPLES = ["recorder=[per_sample]", "recorder.per_sample.dtype=fp32"]
MASKED = [*SAMPLES, "recorder.per_sample.form=masked", "recorder.per_sample.keep=0.5"]
SEVERAL = ["recorder=[checkpoints,layerwise,bayesian]", "recorder.layerwise.keep_first=1"]


def needed_by(plan: Plan) -> int:
    """Return the estimated bytes of all records of a plan."""
    training = training_of(stages_of(plan), plan.root)
    return sum(recorder.estimated_bytes(training) for recorder in plan.recorders.values())


def cures(plan: Plan, free: int, disk: pytest.MonkeyPatch) -> list[str]:
    """Return the settings that the refusal of these records names if so many bytes are free."""
    disk.setattr("methods.recording.space.free_bytes", lambda folder: free)
    recorders = {f"recorder.{name}": recorder for name, recorder in plan.recorders.items()}
    training = training_of(stages_of(plan), plan.root)
    with pytest.raises(UserError, match=r"would write .*, but .* are free: set ") as refused:
        require_space(recorders, dict.fromkeys(recorders, training), model=0)
    *found, last = str(refused.value).split(": set ")[1].split(", or ")
    assert last == "another disk (paths.root=…)"
    return found


def followed(cure: str, folder: Path) -> list[str]:
    """Return the overrides of one of these settings, with as many classes or rows as it allows."""
    overrides, _, limit = cure.partition(" with at most ")
    count = int(limit.split()[0]) if limit else 0
    (folder / "rows.txt").write_text("\n".join(map(str, range(count))))
    listed = overrides.replace("[…]", str(list(range(count))).replace(" ", ""))
    return listed.replace("<file>", str(folder / "rows.txt")).split()


@pytest.mark.parametrize(
    ("overrides", "part", "settings"),
    [
        (UPDATES, 0.6, ["dtype", "classes"]),
        ([*UPDATES, "recorder.batch_updates.classes=[3]"], 0.3, ["classes rows"]),
        (LAYERS, 0.6, ["dtype", "keep_last", "rows"]),
        ([*LAYERS, "recorder.layerwise.dtype=bf16"], 0.01, ["keep_first keep_last"]),
        (SAMPLES, 0.6, ["dtype", "form keep", "classes"]),
        ([*SAMPLES, "recorder.per_sample.group_by=class"], 0.5, ["form keep", "classes"]),
        (MASKED, 0.05, ["keep", "rows"]),
        (["recorder=[checkpoints]", "training.epochs=10"], 0.5, ["epochs"]),
        (SEVERAL, 0.9, ["dtype", "keep_last", "rows"]),
    ],
)
def test_each_setting_that_a_refusal_names_fits(
    quick: Quick,
    overrides: list[str],
    part: float,
    settings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    plan = quick(*overrides)
    free = int(part * needed_by(plan))
    found = cures(plan, free, monkeypatch)
    assert [" ".join(re.findall(r"\.(\w+)=", cure)) for cure in found] == settings
    for cure in found:
        assert needed_by(quick(*overrides, *followed(cure, tmp_path))) <= free, cure


@pytest.mark.parametrize(("overrides", "part"), [(LAYERS, 0.6), (MASKED, 0.5)])
def test_the_share_to_keep_is_the_largest_that_fits(
    quick: Quick, overrides: list[str], part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more in its second digit does not fit."""
    plan = quick(*overrides)
    free = int(part * needed_by(plan))
    (cure,) = [each for each in cures(plan, free, monkeypatch) if ".keep" in each]
    option, _, share = cure.partition("=")
    more = float(share) + 10 ** (math.floor(math.log10(float(share))) - 1)
    assert needed_by(quick(*overrides, f"{option}={more:.6g}")) > free


def test_a_record_that_no_setting_makes_smaller_needs_a_smaller_model(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = quick("recorder=[bayesian]")
    assert cures(plan, 100, monkeypatch) == ["a smaller model (model=…)"]


def test_a_run_is_refused_before_training_and_goes_on_with_such_a_setting(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = quick(*LAYERS)
    free = int(0.6 * needed_by(plan))
    cure = cures(plan, free, monkeypatch)[1]
    model = training_of(stages_of(plan), plan.root).model  # is written beside the record
    room = free + sum(value.nbytes for value in model.state_dict().values())
    monkeypatch.setattr("methods.recording.space.free_bytes", lambda folder: room)
    with pytest.raises(UserError, match=rf"set recorder\.layerwise\.dtype=bf16, or {cure}, or "):
        stages_of(plan).pretrain()
    assert not list(plan.root.glob("store/pretrain/[!.]*"))
    stages = stages_of(quick(*LAYERS, cure))
    stages.pretrain()
    assert 0.9 * free < (stages.record("layerwise").path / "updates.entries").stat().st_size <= free


def test_records_that_fit_one_by_one_and_not_together_are_refused(
    quick: Quick, small_disk: Callable[[int], Path]
) -> None:
    several = ["recorder=[batch_updates,layerwise]", "recorder.layerwise.keep_first=1"]
    updates = ["recorder.layerwise.keep_last=1", "training.epochs=8", "model.hidden=256"]
    plan = quick(*several, *updates, f"paths.root={small_disk(2)}")
    with pytest.raises(
        UserError, match=r"recorder\.batch_updates and recorder\.layerwise and the model would write"
    ):
        stages_of(plan).pretrain()
    assert not list(plan.root.glob("store/pretrain/[!.]*"))


def test_the_largest_share_has_two_digits() -> None:
    assert largest_share(lambda share: share <= 0.03478, 1) == 0.034
    assert largest_share(lambda share: True, 0.5) == 0.49
    assert largest_share(lambda share: False, 1) is None
    assert largest_count(lambda count: count < 7, 100) == 6
    assert largest_count(lambda count: False, 100) == 0
