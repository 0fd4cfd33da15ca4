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


Specify = Callable[..., dict[str, Any]]


@pytest.fixture
def specify(capsys: pytest.CaptureFixture[str]) -> Specify:
    """A function from options to the specification of a dashboard."""

    def of(*options: str) -> dict[str, Any]:
        main(["--dry-run", "name=mine", *options])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return of


@pytest.fixture
def specified(specify: Specify) -> dict[str, Any]:
    return specify("tracking.project=ours", "tracking.entity=team")


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
    run(quick("tracking.enabled=true", "evaluation.every=1"))
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


def pinned(specified: dict[str, Any]) -> set[str]:
    """The names that the table of runs shows."""
    (runs,) = specified["workspace"]["spec"]["section"]["runSets"]
    columns = runs["runFeed"]["columnOrder"]
    return {name.removeprefix("summary:") for name in columns if name.startswith("summary:")}


def test_a_column_is_a_score_a_cost_or_a_logged_value_as_runs_hold_it(
    quick: Quick, specify: Specify
) -> None:
    names = ["test_accuracy", "class_3_accuracy", "compile_seconds", "selected", "at_chance"]
    options = ["method=ssd", "metric=[accuracy,class_accuracy]", f"table.columns=[{','.join(names)}]"]
    run(quick("tracking.enabled=true", *options))
    (written,) = written_in(quick().root)
    shown = pinned(specify(*options))
    assert shown == {
        "abs_gap/average",
        "final/test_accuracy",
        "final/class_3_accuracy",
        "cost/compile_seconds",
        "cost/selected",
        "cost/at_chance",
    }
    absent = shown - written.summary.keys()
    assert absent <= {"cost/at_chance", "abs_gap/average"}, "a flag that is false, and a metric left out"


def test_a_score_of_all_seeds_stands_in_a_section_of_its_own_and_has_no_gap(specify: Specify) -> None:
    columns = "metric=[accuracy,klom,ulira]", "table.columns=[klom,klom_null,ulira_auc,test_accuracy]"
    found = specify(*columns, "evaluation.shadows=16")
    assert {"cell/klom", "cell/klom_null", "cell/ulira_auc", "final/test_accuracy"} <= pinned(found)
    bars = {
        name for panel in sections(found)["Gap to retraining"] for name in panel["config"]["metrics"]
    }
    assert bars == {"abs_gap/average", "gap/test_accuracy"}


def test_a_preset_may_name_values_of_other_methods_and_scores_of_other_metrics(specify: Specify) -> None:
    assert "cost/batches_hit" in pinned(specify("experiment=paper002_hits"))
    assert "final/test_accuracy" in pinned(specify("metric=[klom]"))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("klom_forget", "table.columns names klom_forget, which no run has"),
        ("klom", "no chosen metric gives it: add klom to metric="),
    ],
)
def test_a_column_that_no_run_has_is_refused(column: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        main(["--dry-run", f"table.columns=[{column}]"])


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
