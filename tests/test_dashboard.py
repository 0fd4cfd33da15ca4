"""The dashboard: its specification names what runs hold."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data.errors import UserError
from runner.dashboard.__main__ import main
from runner.pipeline import run
from runner.plan import Plan
from tests.offline_runs import VARIABLES, written_in

pytest.importorskip("wandb_workspaces", reason="needs pip install -e '.[dashboard]'")

Quick = Callable[..., Plan]
HEADINGS = [
    "Methods and metrics",
    "Gap to retraining",
    "Curves by phase",
    "Forgetting, utility and cost",
    "Confusion",
    "Rows that leak",
]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


@pytest.fixture
def specified(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["--dry-run", "name=mine", "tracking.project=ours", "tracking.entity=team"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def sections(specified: dict[str, Any]) -> dict[str, list[Any]]:
    """The panels of the workspace by the names of its sections."""
    found = specified["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    return {each["name"]: each["panels"] for each in found}


def named_in(value: Any) -> Iterator[str]:
    """Yield every string in a specification."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from named_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from named_in(inner)


def test_a_workspace_has_the_sections_and_the_runs_of_a_name(specified: dict[str, Any]) -> None:
    workspace = specified["workspace"]
    assert (workspace["entity"], workspace["project"]) == ("team", "ours")
    assert workspace["displayName"] == "mine"
    assert list(sections(specified)) == HEADINGS
    (runs,) = workspace["spec"]["section"]["runSets"]
    assert "mine" in named_in(runs["filters"])
    assert "method.value.name" in named_in(runs["grouping"])
    columns = runs["runFeed"]["columnOrder"]
    assert columns[:2] == ["run:displayName", "summary:abs_gap/average"]
    assert {"summary:final/test_accuracy", "summary:cost/gradient_examples"} <= set(columns)


def test_a_report_has_a_heading_and_a_grid_for_every_section(specified: dict[str, Any]) -> None:
    report = specified["report"]
    assert report["project"]["name"] == "ours" and report["displayName"] == "Unlearning: mine"
    blocks = report["spec"]["blocks"]
    headings = [each["children"][0]["text"] for each in blocks if each["type"] == "heading"]
    grids = [
        each["metadata"]["panelBankSectionConfig"]["panels"]
        for each in blocks
        if each["type"] == "panel-grid"
    ]
    assert headings == HEADINGS
    assert [len(each) for each in grids] == [len(each) for each in sections(specified).values()]


def test_the_trade_off_is_a_scatter_with_its_front(specified: dict[str, Any]) -> None:
    first, *_ = sections(specified)["Forgetting, utility and cost"]
    assert first["viewType"] == "Scatter Plot"
    assert first["config"]["xAxis"] == "summary:cost/gradient_examples"
    assert first["config"]["yAxis"] == "summary:abs_gap/average"
    assert first["config"]["showMinYAxisLine"] is True


def test_every_panel_shows_what_runs_hold(quick: Quick, specified: dict[str, Any]) -> None:
    run(quick("tracking=wandb", "evaluation.every=1"))
    (written,) = written_in(quick().root)
    held = {name.removesuffix("/sha256") for name in written.summary}
    asked = {
        name.removeprefix("summary:")
        for heading in ("Gap to retraining", "Curves by phase", "Forgetting, utility and cost")
        for panel in sections(specified)[heading]
        for key in ("metrics", "xAxis", "yAxis")
        for name in named_in(panel["config"].get(key, []))
    }
    absent = {name for name in asked - held if not name.startswith(("before/", "repair/"))}
    assert absent == {"gap/rmia_auc"}, "it is undefined for a whole class, and this run repairs nothing"
    assert len(tables_of(specified)) == 3 and set(tables_of(specified)) <= held
    (models,) = sections(specified)["Methods and metrics"]
    assert "tables/models" in named_in(models) and "tables/models" in held


def tables_of(specified: dict[str, Any]) -> list[str]:
    """The names of the tables that the charts of confusion matrices draw."""
    return [
        text
        for panel in sections(specified)["Confusion"]
        for text in named_in(panel["config"])
        if text.endswith("_table")
    ]


def test_a_dashboard_without_an_owner_is_refused() -> None:
    with pytest.raises(UserError, match=r"add tracking\.entity"):
        main(["name=mine"])


def test_without_the_library_the_cure_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['wandb_workspaces'] = None; from runner.dashboard.__main__ import main;"
        "main(['--dry-run'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert "pip install -e '.[dashboard]'" in done.stderr


def test_a_server_that_refuses_the_dashboard_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"W&B did not take the dashboard \(.*wandb login.*--dry-run"):
        main(["name=mine", "tracking.entity=team"])
