"""python -m runner.dashboard name=digits_small_cnn_whole_class tracking.entity=team [--dry-run]

Write a workspace and a report for the runs of a name into a project of W&B. With --dry-run, print what
would be written, as JSON, and ask no server.
"""

import json
from typing import Any

from data.errors import UserError
from runner.errors import run_command
from runner.naming import run_name

DRY = "--dry-run"


def main(arguments: list[str]) -> None:
    """Write the workspace and the report of a name, or print their specification."""
    from runner.columns import asks_for_columns
    from runner.compose import composed
    from runner.tracking import check_settings

    overrides = [argument for argument in arguments if argument != DRY]
    cfg, names = composed(overrides)
    check_settings(cfg.tracking)
    made = _made(cfg, run_name(cfg.name, names), asks_for_columns(overrides))
    if DRY in arguments:
        print(json.dumps({kind: _specification(each) for kind, each in made.items()}, indent=1))
        return
    if cfg.tracking.entity is None:
        raise UserError("a dashboard belongs to a user or a team: add tracking.entity=…, or --dry-run")
    for kind, each in made.items():
        _save(each)
        print(f"{kind}: {each.url}")


def _made(cfg: Any, name: str, asked: bool) -> dict[str, Any]:
    """Return the workspace and the report, by their words. Raise UserError for a column of the table
    that no run has; they may be `asked` for."""
    try:
        from runner.dashboard.layout import Project, report, workspace
    except ModuleNotFoundError as error:
        raise UserError(
            f"dashboards need {error.name}: install it with pip install -e '.[dashboard]'"
        ) from error
    columns, gaps = _shown(cfg, asked)
    tracking = cfg.tracking
    of = Project(tracking.entity or "", tracking.project, name, columns, gaps)
    return {"workspace": workspace(of), "report": report(of)}


def _shown(cfg: Any, asked: bool) -> tuple[list[str], list[str]]:
    """Return the columns of the table by their names in W&B, and those that are scores with a gap: of a
    chosen metric, of one model, and not comparing with the reference themselves."""
    from methods.base import Method
    from metrics.metric import Metric, Score, glossary
    from runner.columns import all_metrics, check_table, given_by
    from runner.plan import build_chosen, class_of
    from runner.tracking.sections import name_of

    columns = [str(column) for column in cfg.table.columns]
    chosen = list(build_chosen(cfg.evaluation.metrics, Metric, "evaluation.metrics").values())
    makers = {option: cfg[option] for option in ("method", "repair") if cfg[option] is not None}
    given = given_by(chosen, [class_of(node, Method, option) for option, node in makers.items()])
    check_table(columns, given, asked)
    scores: dict[str, Score] = {}
    of_cells: dict[str, Score] = {}
    for metric in (*all_metrics(), *chosen):
        (of_cells if metric.of_a_cell else scores).update(metric.about())
    about = glossary([metric for metric in chosen if not metric.of_a_cell], set(columns))
    gaps = [name for name in columns if name in about and not about[name]["paired"]]
    return [name_of(column, scores, of_cells) for column in columns], gaps


def _specification(made: Any) -> Any:
    """Return what the client would send, as JSON-like values."""
    return json.loads(made._to_model().model_dump_json(by_alias=True, exclude_none=True))


def _save(made: Any) -> None:
    """Save a workspace or a report. Raise UserError if the server does not take it."""
    from runner.tracking.start import reason_of

    try:
        made.save()
    except Exception as error:  # the client raises what its server and its parser raise
        raise UserError(
            f"W&B did not take the dashboard ({reason_of(error)}): check the network, `wandb login` and "
            "tracking.entity, push the runs first with python -m runner.tracking push name=…, or look "
            "at it with --dry-run"
        ) from error


if __name__ == "__main__":
    run_command(main, __doc__, [DRY])
