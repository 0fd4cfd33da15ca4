"""The user's own code: an edit between two commands, or while one is at work, is seen and told."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from models.architecture import Architecture
from runner.own_code import digest_of
from runner.pipeline import run
from runner.plan import Plan, build
from runner.report import Report
from runner.stages import workspace
from tests.conftest import QUICK, plan_of, results_in
from tests.test_resume import SHORT, killed, pretrain, steps_of


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder of the user's with a small CNN in `net.py`, which imports `rate.py`."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "rate.py").write_text("RATE = 0.5\n")
    (folder / "other.py").write_text("")
    (folder / "net.py").write_text(
        "from rate import RATE\nfrom models.small_cnn import SmallCNN\n"
        f"class Net(SmallCNN):\n    kind = '{tmp_path.name}.Net'\n    rate = RATE\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("net", "rate"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("edited", "steps"), [("net.py", 39), ("rate.py", 39), ("other.py", 34), (None, 34)]
)
def test_a_state_of_other_code_of_the_users_is_set_aside(
    own: Path, tmp_path: Path, edited: str | None, steps: int
) -> None:
    plan = plan_of(*SHORT, f"paths.root={tmp_path}")
    plan = replace(plan, architecture=import_module("net").Net(**vars(plan.architecture)))
    killed(pretrain, plan, at=7)
    if edited is not None:
        (own / edited).write_text((own / edited).read_text() + "# edited\n")
    assert steps_of(pretrain, plan) == steps


def with_net(plan: Plan) -> Plan:
    """Return a plan with the user's architecture, as a command builds it."""
    options = {"_target_": "net.Net", **vars(plan.architecture)}
    return replace(plan, architecture=build(OmegaConf.create(options), Architecture, "model"))


def started_again() -> None:
    """Forget the user's modules and what was read of their files, as a new process has."""
    for module in ("net", "rate"):
        sys.modules.pop(module, None)
    digest_of.cache_clear()
    workspace._say_edited.cache_clear()


def test_a_state_is_of_the_code_that_ran_and_not_of_an_edit_since_the_command_began(
    own: Path, tmp_path: Path
) -> None:
    """The cells of a sweep are planned when it begins; the last ones may train hours later."""
    plan = with_net(plan_of(*SHORT, f"paths.root={tmp_path}"))
    (own / "net.py").write_text((own / "net.py").read_text() + "# edited\n")
    killed(pretrain, plan, at=7)
    started_again()
    assert steps_of(pretrain, with_net(plan)) == 39


def test_what_was_made_before_an_edit_is_told_and_a_table_says_which_lines_mix(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = f"{tmp_path.name}.Net"
    for seed in (0, 1):
        plan = with_net(plan_of(*QUICK, "evaluation=quick", f"seed={seed}", f"paths.root={tmp_path}"))
        run(plan)
        assert "was edited" not in capsys.readouterr().err
        started_again()
        (own / "net.py").write_text((own / "net.py").read_text() + "# edited\n")
    run(with_net(plan))
    told = capsys.readouterr().err
    assert told.count(f"the code of {kind} was edited, and what is stored was made before") == 1
    table = Report(results_in(tmp_path), ["test_accuracy"]).markdown()
    assert f"made with different code of {kind}: " in table
