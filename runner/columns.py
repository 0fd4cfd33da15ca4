"""Columns of tables and figures, checked before the first training: can a run have them?"""

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

import conf
from data.errors import UserError
from data.meanings import key_of
from metrics.metric import Metric
from runner.figure.drawing import Drawing
from runner.plan import Plan, build
from runner.report.text import COSTS
from runner.wording import suggestion

ROOT = Path(__file__).parent.parent


def check_columns(
    plan: Plan, columns: Sequence[str], drawings: Mapping[str, Drawing], asked: bool
) -> None:
    """Raise UserError for a column of the table, or of a figure, that no run has.

    A run has the scores of its metrics, its costs, and the values that its method logs, whose names
    stand in the method's code. If the columns of the table were `asked` for, a metric that gives them
    must be chosen; those of a preset may name scores of metrics that are not.
    """
    given = {*COSTS, *_scores(plan.metrics)}
    shown = {f"figure.{name}.y": drawing.shown() for name, drawing in drawings.items()}
    for option, names in {"table.columns": columns, **shown}.items():
        for name in names:
            score = name.removesuffix("_null")
            if key_of(score, dict.fromkeys(given)) is not None or _is_logged(name, plan):
                continue
            by = _metric_of(score)
            if by is None:
                near, listed = suggestion(name, given), ", ".join(sorted(given))
                raise UserError(f"{option} names {name}, which no run has{near}: choose from {listed}")
            if asked and option == "table.columns":
                raise UserError(
                    f"{option} names {name}, and no chosen metric gives it: add {by} to metric=[…]"
                )


def _scores(metrics: Iterable[Metric]) -> Iterator[str]:
    for metric in metrics:
        yield from metric.about()


def _metric_of(score: str) -> str | None:
    """Return the metric of conf/metric that gives a score, or None."""
    for path in sorted(Path(conf.__file__).parent.glob("metric/*.yaml")):
        about = build(OmegaConf.load(path), Metric, f"metric.{path.stem}").about()
        if key_of(score, about) is not None:
            return path.stem
    return None


def _is_logged(name: str, plan: Plan) -> bool:
    """Return whether a name is spelled as a string in code that logs values, ours or the components'."""
    ours = {path for part in ("methods", "runner") for path in (ROOT / part).rglob("*.py")}
    modules = {base.__module__ for each in (plan.method, plan.repair) for base in type(each).__mro__}
    theirs = {Path(inspect.getfile(sys.modules[module])) for module in modules - {"builtins"}}
    return any(f'"{name}"' in path.read_text() for path in ours | theirs)
