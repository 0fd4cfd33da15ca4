"""The panels of a workspace and of a report, by the names that `runner.tracking` gives."""

from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from runner.roles import ROLES, UNLEARNED
from runner.tracking.sections import CONFUSION, EPOCH, LEAKING, PASS, PHASE, SCORED

METHOD = "method.name"

# The two sides of the trade-off, and what it costs.
FORGETTING, UTILITY, COST = "test_forget_accuracy", "test_retain_accuracy", "gradient_examples"

# The values that every phase of training logs.
LOGGED = ("loss", "accuracy")

WIDE = wr.Layout(w=24, h=10)


@dataclass(frozen=True)
class Project:
    """The runs to show: those of a group (the name of results) in a project of an entity.

    `columns` are the columns of the table by their names in W&B. The gaps of the scores in `gaps` to the
    reference are drawn.
    """

    entity: str
    project: str
    group: str
    columns: list[str]
    gaps: list[str]


def workspace(of: Project) -> Any:
    """Return the workspace, which is not saved yet."""
    return ws.Workspace(
        entity=of.entity,
        project=of.project,
        name=of.group,
        sections=[
            ws.Section(name=name, panels=panels, is_open=True) for name, panels in _sections(of).items()
        ],
        settings=ws.WorkspaceSettings(group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == of.group),
            groupby=[ws.Config(METHOD)],
            pinned_columns=_shown(of),
        ),
    )


def report(of: Project) -> Any:
    """Return the report, which is not saved yet: a heading and a grid of panels for each section."""
    runs = wr.Runset(
        name=of.group,
        filters=ws.And(ws.Metric("Group") == of.group),
        groupby=[f"config.{METHOD}"],
        pinned_columns=_shown(of),
    )
    blocks: list[Any] = [wr.TableOfContents()]
    for name, panels in _sections(of).items():
        blocks += [wr.H1(text=name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(
        entity=of.entity,
        project=of.project,
        title=f"Unlearning: {of.group}",
        description="Scores of unlearned models beside those of models retrained without the rows.",
        blocks=blocks,
    )


def _sections(of: Project) -> dict[str, list[Any]]:
    """Return the panels of every section, by its heading."""
    return {
        "Methods and metrics": [wr.WeavePanelSummaryTable(table_name="tables/models", layout=WIDE)],
        "Gap to retraining": _gaps(of),
        "Curves by phase": _curves(of),
        "Forgetting, utility and cost": _trade_offs(),
        "Confusion": _confusion(),
        "Rows that leak": [wr.WeavePanelSummaryTable(table_name=f"tables/{LEAKING}", layout=WIDE)],
    }


def _shown(of: Project) -> list[str]:
    """Return the columns of the table of runs: the average gap, the scores and the costs."""
    return ["run:displayName", *(f"summary:{name}" for name in ["abs_gap/average", *of.columns])]


def _gaps(of: Project) -> list[Any]:
    """Return a bar chart for every gap, the average of all first. The bars are means over seeds."""
    return [
        wr.BarPlot(
            title=name,
            metrics=[name],
            groupby=wr.Config(METHOD),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
        )
        for name in ["abs_gap/average", *(f"gap/{name}" for name in of.gaps)]
    ]


def _curves(of: Project) -> list[Any]:
    """Return a panel for every phase and value, over the phase's own axis."""
    phases = [PHASE.get(role.curves, role.curves) for role in ROLES]
    panels = [_curve(phase, EPOCH, value) for phase in phases for value in LOGGED]
    scored = f"{UNLEARNED.curves}_{SCORED}"
    return [*panels, *(_curve(scored, PASS, value) for value in (FORGETTING, UTILITY))]


def _curve(section: str, axis: str, value: str) -> Any:
    return wr.LinePlot(
        title=f"{section}: {value}",
        x=f"{section}/{axis}",
        y=[f"{section}/{value}"],
        title_x=axis,
        groupby=wr.Config(METHOD),
        groupby_aggfunc="mean",
        groupby_rangefunc="stderr",
    )


def _trade_offs() -> list[Any]:
    """Return scatter plots with the running best of their vertical axis: the Pareto front."""
    cost = wr.SummaryMetric(f"cost/{COST}")
    gap, utility = wr.SummaryMetric("abs_gap/average"), wr.SummaryMetric(f"final/{UTILITY}")
    return [
        wr.ScatterPlot(title="average gap against cost", x=cost, y=gap, log_x=True, running_ymin=True),
        wr.ScatterPlot(title="utility against cost", x=cost, y=utility, log_x=True, running_ymax=True),
        wr.ScatterPlot(
            title="utility against forgetting",
            x=wr.SummaryMetric(f"final/{FORGETTING}"),
            y=utility,
            running_ymax=True,
        ),
    ]


def _confusion() -> list[Any]:
    """Return the charts of confusion matrices, in the order in which a run makes its models."""
    return [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"{CONFUSION}/{role.name}_table"}},
            chart_name="wandb/confusion_matrix/v1",
            chart_fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
            chart_strings={"title": f"Confusion matrix, {role.name}"},
        )
        for role in ROLES
        if role.shared or role is UNLEARNED
    ]
