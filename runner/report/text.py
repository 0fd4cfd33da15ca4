"""Text: estimates as cells, and cells as an aligned, Markdown or LaTeX table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.published import Published
from runner.report.cells import ABSENT, Estimate, Estimates
from runner.results import Line, Result
from runner.roles import UNLEARNED

# A function that writes the cell of a line in a column.
Texts = Callable[[Line, str], str]

# The part of a name that tells an official twin, and the mark of its column.
OFFICIAL, OFFICIAL_MARK = "_official", " †"

# Metrics that have no gap to the reference, and no interval if all seeds agree.
COSTS = {
    "gradient_examples", "forward_examples", "seconds", "peak_bytes", "record_bytes", "record_seconds",
    "compile_seconds",
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """A text format: a format of tabulate, the separator of words in a heading, the start and end of a
    remark below the table, and the widest table in characters, None for no limit."""

    tabulate: str
    separator: str
    comment: str
    end: str
    width: int | None = None

    def table(self, heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
        """Return a table whose first column is aligned left, and the others right."""
        from tabulate import tabulate

        align = ("left", *("right" for _ in heads[1:]))
        return str(
            tabulate(body, headers=heads, tablefmt=self.tabulate, disable_numparse=True, colalign=align)
        )

    def heading(self, *words: str) -> str:
        """Return the heading of a column; a word may be several words joined by underscores.

        An official twin, whose number is a paper's code's, is marked with †.
        """
        name = "_".join(words)
        return self.separator.join(name.split("_")) + (OFFICIAL_MARK if OFFICIAL in name else "")


TERMINAL = Style("simple", "\n", "", "\n", width=120)
MARKDOWN = Style("pipe", " ", "", "\n\n")
LATEX = Style("latex_booktabs", " ", "% ", "\n")


def tables(
    style: Style, corner: str, lines: Mapping[Line, str], columns: Sequence[str], texts: Texts
) -> list[str]:
    """Return the table of `columns` for `lines`, which map to their labels, as one or several tables.

    `corner` heads the column of labels, and `texts` writes the cells. In a terminal, a table that is too
    wide goes on in the next one.
    """
    cells = {column: [texts(line, column) for line in lines] for column in columns}
    labels = list(lines.values())
    found = []
    for group in _groups(style, max(map(len, [corner, *labels]), default=0), cells):
        body = [[label, *(cells[column][i] for column in group)] for i, label in enumerate(labels)]
        found.append(style.table([corner, *map(style.heading, group)], body))
    return found


def _groups(style: Style, first: int, cells: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the columns in groups that fit the style's width beside a first column of this width."""
    groups: list[list[str]] = []
    taken = 0
    for column, texts in cells.items():
        words = [line for text in (style.heading(column), *texts) for line in text.split("\n")]
        wide = max(map(len, words)) + 2  # tabulate puts two spaces between columns
        if not groups or (style.width is not None and first + taken + wide > style.width):
            groups.append([])
            taken = 0
        groups[-1].append(column)
        taken += wide
    return groups


def marked(verdict: str, needed: int | None) -> str:
    """Return a verdict as it stands behind a gap; an unclear one names the seeds that would decide."""
    if verdict == "unclear":
        return "?" if needed is None else f"? (n={needed})"
    return verdict.removesuffix("-forgets")


def beside(style: Style, results: list[Result], estimates: Estimates, published: Published) -> str:
    """Return a table of our numbers, with the paper's in brackets.

    Its lines are those of the paper's table, followed by our other variants. A number stands only beside
    results of its data set and model.
    """
    ours: dict[str, dict[str, Line]] = {}
    of = {variant: printed for (variant, _, _), printed in published.items()}
    for result in results:
        if result.variant in of and not of[result.variant].is_of(result):
            continue
        ours.setdefault(result.variant, {}).update(_lines_by_role(result))
    heads = list(dict.fromkeys((role, metric) for _, role, metric in published))
    body = []
    for variant in dict.fromkeys([variant for variant, _, _ in published] + sorted(ours)):
        texts = [variant]
        for role, metric in heads:
            line = ours.get(variant, {}).get(role)
            text = cell(ABSENT if line is None else estimates.get((line, metric), ABSENT))
            theirs = published.get((variant, role, metric))
            texts.append(text if theirs is None else f"{text} ({theirs.value:g})")
        body.append(texts)
    return style.table(["ours (paper's)", *(style.heading(*head) for head in heads)], body)


def _lines_by_role(result: Result) -> dict[str, Line]:
    """Return the line of each scored role; a model that repeats a shared one is in the shared line."""
    found = {role.name: result.line(role) for role in result.roles}
    if (again := result.repeats) is not None:
        found[UNLEARNED.name] = result.line(again)
    return found


def cell(estimate: Estimate, sign: str = "", expected: int | None = None, exact: bool = False) -> str:
    """Return an estimate as text, such as "0.912 ± 0.013 (n=2)", or a dash if it is absent.

    The number of seeds is shown if it differs from `expected`. An `exact` number, such as a count, has
    no interval if all seeds agree.
    """
    mean, half_width, n = estimate
    if n == 0 or mean != mean:
        return "—"
    text = _number(mean, sign)
    if half_width == half_width and not (exact and half_width == 0):
        text += f" ± {_number(half_width)}"
    return text if expected in (None, n) else f"{text} (n={int(n)})"


def _number(value: float, sign: str = "") -> str:
    """Return a number with three decimals, or fewer if it is large."""
    for bound, form in ((10, ".3f"), (1000, ".1f")):
        if abs(value) < bound:
            return format(value, sign + form)
    return format(value, sign + ",.0f")
