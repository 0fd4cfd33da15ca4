"""Columns of tables and figures, checked before the first training: can a run have them?"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from omegaconf import OmegaConf

import conf
from data.errors import UserError
from data.meanings import key_of
from methods.base import Method
from methods.training.loop import CURVES
from metrics.metric import Metric, glossary
from runner.figure.drawing import Drawing
from runner.plan import Plan, build, class_of, identities
from runner.report.remarks import FLAGS, choice_of
from runner.report.text import COSTS
from runner.stages.unlearn import CLAMPED, CUT, PASS
from runner.wording import ALL, NEAREST, suggestion


def check_columns(
    plan: Plan, columns: Sequence[str], drawings: Mapping[str, Drawing], asked: bool
) -> None:
    """Raise UserError for a column of the table, or of a figure, that no run has.

    A table has the scores of the run's metrics, its costs, the remarks on it, and the values that a
    method logs; figures also have the curves. If the columns of the table were `asked` for, a metric
    that gives them must be chosen; those of a preset may name scores of metrics that are not. Without
    columns there would be no table: then a single run prints `columns_of` in its place.
    """
    given = _given(plan)
    if not columns:
        raise UserError("table.columns is empty: name some, or leave out -m and plan=true to list all")
    drawn = {*given, *CURVES, *_after_passes(plan)}
    shown = [("table.columns", columns, given)]
    shown += [(f"figure.{name}.y", each.shown(), drawn) for name, each in drawings.items()]
    for option, names, known in shown:
        for name in names:
            score = name.removesuffix("_null")
            if key_of(score, dict.fromkeys(known)) is not None or _method_of(name) is not None:
                continue
            by = _metric_of(score)
            if by is None:
                near, more = suggestion(name, sorted(known), NEAREST), ", ".join(sorted(known - given))
                also = f"; figures also have {more}" if more else ""
                raise UserError(f"{option} names {name}, which no run has{near}: {ALL}{also}")
            if asked and option == "table.columns":
                raise UserError(
                    f"{option} names {name}, and no chosen metric gives it: add {by} to metric=[…]"
                )


def columns_of(plan: Plan) -> str:
    """Return all columns that the table of a run may have, one a line, with what is known of each."""
    given = _given(plan)
    return choice_of(given, glossary(plan.metrics, given))


def _given(plan: Plan) -> set[str]:
    return {*COSTS, *FLAGS, CUT, CLAMPED, *_scores(plan.metrics), *_logged(plan)}


def _scores(metrics: Iterable[Metric]) -> Iterator[str]:
    return chain.from_iterable(metric.about() for metric in metrics)


def _logged(plan: Plan) -> Sequence[str]:
    """Return the values that the run's method and repair declare to log."""
    return (*plan.method.logs, *(() if plan.repair is None else plan.repair.logs))


def _after_passes(plan: Plan) -> Sequence[str]:
    """Return the values that are logged after passes of unlearning, if `evaluation.every` asks for
    them."""
    return (PASS, *_scores(identities.LOOKS)) if identities.scoring(plan) else ()


def _method_of(value: str) -> str | None:
    """Return a method of conf/method that logs a value, or None: another cell of the sweep may choose
    it."""

    def logs(path: Path) -> bool:
        method = class_of(OmegaConf.load(path), Method, f"method.{path.stem}")
        return value in method.logs

    return _first("method", logs)


def _metric_of(score: str) -> str | None:
    """Return the metric of conf/metric that gives a score, or None."""

    def gives(path: Path) -> bool:
        metric = build(OmegaConf.load(path), Metric, f"metric.{path.stem}")
        return key_of(score, metric.about()) is not None

    return _first("metric", gives)


def _first(group: str, wanted: Callable[[Path], bool]) -> str | None:
    """Return the name of the first option of a group whose file is wanted, or None."""
    paths = sorted(Path(conf.__file__).parent.glob(f"{group}/[!_]*.yaml"))
    return next((path.stem for path in paths if wanted(path)), None)
