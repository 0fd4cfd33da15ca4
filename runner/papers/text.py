"""Verdicts as text: one table of printed cells, and the summary of all."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from runner.naming import WHOLE
from runner.papers.rules import Table, names, table
from runner.papers.verdicts import MATCHES, NOT_RUN, WORDS, ScaleRows, Verdict, agreements, verdicts
from runner.published import FOLDER
from runner.report import rows as of_rows
from runner.report.cells import Estimate, half_width_of
from runner.report.text import Style, cell
from runner.results import Results

# The committed results.
RESULTS = FOLDER.parent

# The scales whose runs have a verdict, the largest first.
SCALES = (WHOLE, "gpu", "cpu")

# The heads of a table of verdicts.
HEADS = ["line", "model", "score", "printed", "ours", "verdict", "scale", "reason"]


def found_runs(name: str, root: Path) -> list[ScaleRows]:
    """Return the runs of a table's preset by scale, of the results below `root` and the committed ones.

    The former stand first: they are those of the table above the verdicts.
    """
    found = []
    for scale in SCALES:
        full = name if scale == WHOLE else f"{name}_{scale}"
        rows: list[of_rows.Row] = []
        if (stored := Results(root / "results")).has(full):
            rows += of_rows.of_results(stored.named(full))
        if (path := RESULTS / f"{full}_rows.csv").is_file():
            rows += of_rows.read(path)
        found.append(ScaleRows(scale, rows))
    return found


def of_table(style: Style, name: str, root: Path) -> str | None:
    """Return the verdicts on the printed table whose preset gives results of this name, as text; None if
    there is no such table."""
    found = printed_table(name, root)
    return None if found is None else one_table(style, *found)


def printed_table(name: str, root: Path) -> tuple[Table, list[ScaleRows]] | None:
    """Return the printed table whose preset gives results of this name, and its runs; None if there is
    no such table. The scale in the name chooses the runs, and without one those of all scales count."""
    if (found := _preset(name)) is None:
        return None
    own, scale = found
    runs = found_runs(own, root)
    return table(own), runs if own == name else [each for each in runs if each.scale == scale]


def how_to_run(name: str) -> str:
    """Return the command of the preset that gives results of this name, which is that of a printed
    table."""
    found = _preset(name)
    assert found is not None
    own, scale = found
    return f"python -m runner -m experiment={own}{'' if scale == WHOLE else f' scale={scale}'}"


def _preset(name: str) -> tuple[str, str] | None:
    """Return the printed table whose preset gives results of this name, and the preset's scale."""
    for scale in SCALES:
        own = name if scale == WHOLE else name.removesuffix(f"_{scale}")
        if own in names() and (scale == WHOLE or own != name):
            return own, scale
    return None


def one_table(style: Style, printed: Table, runs: Sequence[ScaleRows]) -> str:
    """Return the verdict on every cell of a printed table, and what its orders agree in."""
    found = verdicts(printed, runs)
    body = [line(each) for each in found]
    caption = f"Every printed cell of {printed.name}, and ours."
    parts = [style.table(HEADS, body, caption), f"{printed.name}: {_counts(found)}"]
    for part in ("commit", "device"):
        values = sorted({getattr(row, part) for each in runs for row in each.rows})
        if len(values) > 1:
            parts.append(f"our rows are of more than one {part}: {', '.join(values)}")
    for each in agreements(printed, found) if printed.ranks else []:
        parts.append(
            f"{each.metric}: rank correlation {each.correlation:.2f} over {each.lines + 1} lines; "
            f"{each.signs} of {each.lines} gaps to retraining have the printed sign"
        )
    return "\n\n".join(parts)


def line(found: Verdict) -> list[str]:
    """Return the texts of a printed cell and its verdict, below `HEADS`."""
    printed, values = found.cell, found.values
    half = half_width_of(values) if len(values) > 1 else float("nan")
    ours = cell(Estimate(sum(values) / len(values), half, len(values)), expected=0) if values else "—"
    return [
        printed.line, printed.role, printed.metric.replace("_", " "), printed.text,
        ours, found.word, found.scale, found.reason,
    ]  # fmt: skip


def summary(style: Style, root: Path) -> str:
    """Return the number of cells by table and verdict."""
    body, total, single = [], Counter[str](), 0
    for name in names():
        found = verdicts(table(name), found_runs(name, root))
        counts = Counter(each.word for each in found)
        single += sum(each.word == MATCHES and len(each.values) == 1 for each in found)
        body.append([name, str(counts.total()), *(str(counts[word]) for word in WORDS)])
        total += counts
    body.append(["all", str(total.total()), *(str(total[word]) for word in WORDS)])
    caption = "Printed cells by table and verdict."
    by_one = f"{single} of the {total[MATCHES]} matches rest on a single run, which has no interval"
    return "\n\n".join([style.table(["table", "cells", *WORDS], body, caption), by_one, _how(total)])


def _how(total: Counter[str]) -> str:
    if not total[NOT_RUN]:
        return "every cell has been run"
    return "a table is run by python -m runner -m experiment=<table> scale=cpu"


def _counts(found: Sequence[Verdict]) -> str:
    counts = Counter(each.word for each in found)
    return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
