"""Columns of tables and figures, checked before the first training: can a run have them?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

import conf
from data.errors import UserError
from data.meanings import key_of
from methods.base import Method
from methods.training.loop import CURVES
from metrics.metric import Metric, glossary
from runner.figure.drawing import Drawing
from runner.plan import Plan, build, build_chosen, class_of, identities
from runner.report.glossary import choice_of
from runner.report.remarks import FLAGS
from runner.report.text import COSTS
from runner.tracking.sections import PASS
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
    check_table(columns, given, asked)
    drawn = {*given, *CURVES, *_after_passes(plan)}
    for option, drawing in drawings.items():
        for name in drawing.shown():
            _giving(f"figure.{option}.y", name, drawn, drawn - given)


def check_table(columns: Sequence[str], given: Set[str], asked: bool) -> None:
    """Raise UserError for a column of the table that is not `given` (see `given_by`) and that no other
    method or metric gives; if the columns were `asked` for, also for one of a metric that is not chosen.
    """
    for name in columns:
        by = _giving("table.columns", name, given)
        if asked and by is not None:
            raise UserError(
                f"table.columns names {name}, and no chosen metric gives it: add {by.option} to "
                "metric=[…]"
            )


def columns_of(plan: Plan) -> str:
    """Return all columns that the table of a run may have, one a line, with what is known of each."""
    given = _given(plan)
    return choice_of(given, glossary(plan.metrics, given))


def not_shown(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return the scores of the run's metrics of which the table has no column; none if the overrides
    name the columns."""
    if asks_for_columns(overrides):
        return []
    metrics = build_chosen(cfg.evaluation.metrics, Metric, "evaluation.metrics").values()
    shown = set(cfg.table.columns)
    return [score for each in metrics if not shown & each.about().keys() for score in each.about()]


def asks_for_columns(overrides: Sequence[str]) -> bool:
    """Return whether the overrides name the columns of the table, which a preset may name, too."""
    return any(override.startswith("table.columns=") for override in overrides)


def given_by(metrics: Iterable[Metric], makers: Iterable[Method | type[Method]]) -> set[str]:
    """Return the columns that the table of runs with these metrics, methods and repairs has."""
    logged = chain.from_iterable(maker.logs for maker in makers)
    return {*COSTS, *FLAGS, *_scores(metrics), *logged}


def all_metrics() -> Iterator[Metric]:
    """Yield the metrics of conf/metric."""
    for path in _options("metric"):
        yield build(OmegaConf.load(path), Metric, f"metric.{path.stem}")


def _given(plan: Plan) -> set[str]:
    return given_by(plan.metrics, [plan.method, *([] if plan.repair is None else [plan.repair])])


def _scores(metrics: Iterable[Metric]) -> Iterator[str]:
    return chain.from_iterable(metric.about() for metric in metrics)


def _after_passes(plan: Plan) -> Sequence[str]:
    """Return the values that are logged after passes of unlearning, if `evaluation.every` asks for
    them."""
    return (PASS, *_scores(identities.LOOKS)) if identities.scoring(plan) else ()


def _giving(option: str, name: str, known: Set[str], drawn: Iterable[str] = ()) -> Metric | None:
    """Return the metric that gives a column and is not chosen; None if the column is known, or if
    another cell of the sweep may choose a method that logs it.

    Raise UserError, naming the `option`, if no run has it; figures alone have those that are `drawn`.
    """
    score = name.removesuffix("_null")
    if key_of(score, dict.fromkeys(known)) is not None or _is_logged(name):
        return None
    for metric in all_metrics():
        if key_of(score, metric.about()) is not None:
            return metric
    near, more = suggestion(name, sorted(known), NEAREST), ", ".join(sorted(drawn))
    also = f"; figures also have {more}" if more else ""
    raise UserError(f"{option} names {name}, which no run has{near}: {ALL}{also}")


def _is_logged(value: str) -> bool:
    """Return whether a method of conf/method logs a value."""
    options = _options("method")
    methods = (class_of(OmegaConf.load(path), Method, f"method.{path.stem}") for path in options)
    return any(value in method.logs for method in methods)


def _options(group: str) -> list[Path]:
    """Return the files of the options of a group."""
    return sorted(conf.FOLDER.glob(f"{group}/[!_]*.yaml"))
