"""Verdicts on printed numbers, by the rule of results/published/rule.yaml."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from runner.papers.rules import PrintedCell, Table, VerdictRule, rule
from runner.report.rows import Row
from runner.report.verdicts import ROUNDING, quantile

MATCHES, DIFFERS, NOT_COMPARABLE, NOT_RUN = WORDS = ("matches", "differs", "not comparable", "not run")


class Verdict(NamedTuple):
    """A verdict on a printed cell: our values of it, the word, the reason, and the scale of our runs."""

    cell: PrintedCell
    values: list[float]
    word: str
    reason: str
    scale: str


@dataclass(frozen=True)
class ScaleRows:
    """The rows of a table's preset at one scale."""

    scale: str
    rows: list[Row]


def verdicts(table: Table, found: Sequence[ScaleRows]) -> list[Verdict]:
    """Return a verdict on every cell of a table.

    `found` holds our runs by scale, the largest first. The largest scale whose runs decide by an
    interval counts, else the largest whose single run matches, else the largest that has any: a single
    run cannot differ, so it must not stand before several that can.
    """
    return [_best([_verdict(table, cell, runs) for runs in found], cell) for cell in table.cells]


def _best(each: list[Verdict], cell: PrintedCell) -> Verdict:
    decided = [found for found in each if found.word in (MATCHES, DIFFERS)]
    by_interval = [found for found in decided if len(found.values) >= rule().fewest]
    others = [found for found in each if found.word == NOT_COMPARABLE]
    return next(iter((*by_interval, *decided, *others)), Verdict(cell, [], NOT_RUN, "", ""))


def _verdict(table: Table, cell: PrintedCell, runs: ScaleRows) -> Verdict:
    """Return the verdict by the runs of one scale."""
    line = table.instead.get(runs.scale, {}).get(cell.line, cell.line)
    metric = table.metrics.get(runs.scale, {}).get(cell.metric, cell.metric)
    rows = [row for row in runs.rows if (row.variant, row.role) == (line, cell.role)]
    rows = _alike([row for row in rows if metric in row.scores], cell)
    values = [row.scores[metric] for row in rows]
    word, reason = NOT_RUN, ""
    if rows and rows[0].own_options:
        word, reason = NOT_COMPARABLE, f"made with {' '.join(rows[0].own_options)}"
    elif rows and (apart := table.apart.get(runs.scale) or _other(cell, rows[0])):
        word, reason = NOT_COMPARABLE, apart
    elif rows:
        word, reason = judged(cell, values, rule())
        reason = (
            ": ".join(text for text in (reason, table.reason(cell)) if text)
            if word == DIFFERS
            else reason
        )
    pairs = [(line, cell.line), (metric.replace("_", " "), cell.metric.replace("_", " "))]
    stand = [f"our {own} stands for it" for own, printed in pairs if rows and own != printed]
    return Verdict(cell, values, word, "; ".join(filter(None, [reason, *stand])), runs.scale)


def _alike(rows: Iterable[Row], cell: PrintedCell) -> list[Row]:
    """Return one row for each seed, the first, of rows with the same options, data and model: as the
    preset is written and the cell is, if there are such rows, else as the first one."""
    ordered = sorted(rows, key=lambda row: (len(row.own_options), _other(cell, row)))
    alike = [row for row in ordered if _kind(row) == _kind(ordered[0])]
    return list({row.seed: row for row in reversed(alike)}.values())


def _kind(row: Row) -> tuple[list[str], str, str]:
    return sorted(row.own_options), row.dataset, row.model


def _other(cell: PrintedCell, row: Row) -> str:
    """Return in which data set or model a row is another than a cell; empty if it is the same."""
    pairs = [("dataset", row.dataset, cell.dataset), ("model", row.model, cell.model)]
    return ", ".join(f"{name}={own}, not {theirs}" for name, own, theirs in pairs if own != theirs)


def judged(cell: PrintedCell, values: Sequence[float], by: VerdictRule) -> tuple[str, str]:
    """Return the word and the reason for comparable values, at least one."""
    n, mean = len(values), fmean(values)
    # 0.975 may be printed as 0.98, apart from rounding
    rounding = cell.rounding + ROUNDING
    if n < by.fewest:
        if abs(cell.value - mean) <= rounding:
            return MATCHES, "within rounding"
        return NOT_COMPARABLE, f"{n} run has no interval, and {by.fewest} are the fewest that differ"
    half = half_of_prediction(values, by.level)
    if abs(cell.value - mean) <= half + rounding:
        return MATCHES, ""
    return DIFFERS, f"outside {mean - half:.3f} to {mean + half:.3f}"


def half_of_prediction(values: Sequence[float], level: float) -> float:
    """Return half the width of the interval that holds one more of at least two normal values."""
    n = len(values)
    # t₍₁₊level₎⸝₂,ₙ₋₁ · s · √(1 + 1/n)
    return quantile((1 + level) / 2, n - 1) * stdev(values) * math.sqrt(1 + 1 / n)


class Agreement(NamedTuple):
    """The agreement of the order of a table's lines in one metric: Spearman's rank correlation over
    `lines` lines, NaN if one order has none, and the number whose gap to retraining has our sign."""

    metric: str
    correlation: float
    signs: int
    lines: int


def agreements(table: Table, found: Sequence[Verdict]) -> list[Agreement]:
    """Return the agreement of the orders in each metric that both have for at least three lines."""
    from scipy.stats import spearmanr

    result = []
    for metric in dict.fromkeys(cell.metric for cell in table.cells):
        own = [each for each in found if each.cell.metric == metric and each.values]
        theirs, ours = [each.cell.value for each in own], [fmean(each.values) for each in own]
        base = next((i for i, each in enumerate(own) if each.cell.line == table.ranks), None)
        if base is None or len(own) < 3:
            continue
        constant = len(set(theirs)) == 1 or len(set(ours)) == 1
        correlation = math.nan if constant else float(spearmanr(theirs, ours).statistic)
        signs = sum(
            _sign(a - theirs[base]) == _sign(b - ours[base]) for a, b in zip(theirs, ours, strict=True)
        )
        result.append(Agreement(metric, correlation, signs - 1, len(own) - 1))
    return result


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
