"""Text: estimates as cells, and cells as an aligned or Markdown table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from runner.published import Published
from runner.report.cells import ABSENT, Estimate, Estimates
from runner.report.words import choice, spaced, variant
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
    """A text format: a format of tabulate, the start and end of a remark below the table, and the widest
    table in characters, None for no limit.

    If `words` is false, methods, options and scores are named by what one types for them, as in a
    terminal; else by people's words (see `runner.report.words`).
    """

    tabulate: str
    comment: str
    end: str
    words: bool
    width: int | None = None

    def table(self, heads: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
        """Return a table whose first column is aligned left, and the others right.

        `caption` is for formats whose tables have one.
        """
        from tabulate import tabulate

        align = ("left", *("right" for _ in heads[1:]))
        return str(
            tabulate(body, headers=heads, tablefmt=self.tabulate, disable_numparse=True, colalign=align)
        )

    def heading(self, name: str, title: str) -> str:
        """Return the heading of a column by its identifier or its title.

        An official twin, whose number is a paper's code's, is marked with †.
        """
        text = title if self.words else name.replace("_", "\n")
        return text + (OFFICIAL_MARK if OFFICIAL in name else "")


TERMINAL = Style("simple", "", "\n", words=False)
MARKDOWN = Style("pipe", "", "\n\n", words=True)


# The most tables, one below the other, that a terminal shows of one whose columns are too many.
PIECES = 2


def pieces(style: Style, columns: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the numbers of the columns of each table that fits the style's width, the first column
    included in each; `columns` hold the head and the cells of each.

    The columns are in the order of their importance: those that do not fit into `PIECES` tables, the
    last ones, are left out. A table has at least one column beside the first.
    """
    first, *widths = (max(len(line) for cell in each for line in cell.split("\n")) for each in columns)
    found: list[list[int]] = []
    taken = 0
    for number, width in enumerate(widths, start=1):
        taken += width + 2  # tabulate puts two spaces between columns
        if not found or (style.width is not None and taken > style.width):
            found.append([0])
            taken = first + width + 2
        found[-1].append(number)
    return found[:PIECES]


def folded(style: Style, label: str) -> str:
    """Return a label, folded to two fifths of the style's width."""
    return label if style.width is None else "\n".join(wrap(label, max(2 * style.width // 5, 20)))


def marked(verdict: str, needed: int | None) -> str:
    """Return a verdict as it stands behind a gap; an unclear one names the seeds that would decide."""
    if verdict == "unclear":
        return "?" if needed is None else f"? (n={needed})"
    return verdict.removesuffix("-forgets")


def beside(
    style: Style,
    results: list[Result],
    estimates: Estimates,
    published: Published,
    title: Callable[[str], str],
    expected: int,
) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the body of a table of our numbers, with the paper's in brackets.

    Its lines are those of the paper's table, followed by our other variants. A number stands only beside
    results of its data set and model. `title` names a score. The number of seeds is shown where it
    differs from `expected`.
    """
    ours: dict[str, dict[str, Line]] = {}
    names: dict[str, str] = {}
    of = {key[0]: printed for key, printed in published.items()}
    for result in results:
        if result.variant in of and not of[result.variant].is_of(result):
            continue
        ours.setdefault(result.variant, {}).update(_lines_by_role(result))
        names[result.variant] = choice(result, "method")
    columns = list(dict.fromkeys((role, metric) for _, role, metric in published))
    body = []
    for each in dict.fromkeys([key[0] for key in published] + sorted(ours)):
        texts = [names.get(each, variant(each, spaced(each))) if style.words else each]
        for role, metric in columns:
            line = ours.get(each, {}).get(role)
            found = ABSENT if line is None else estimates.get((line, metric), ABSENT)
            text = cell(found, expected=expected)
            theirs = published.get((each, role, metric))
            texts.append(text if theirs is None else f"{text} ({theirs.value:g})")
        body.append(texts)
    heads = [style.heading(f"{role}_{metric}", f"{role}: {title(metric)}") for role, metric in columns]
    return ["ours (paper's)", *heads], body


def _lines_by_role(result: Result) -> dict[str, Line]:
    """Return the line of each scored role; a model that repeats a shared one is in the shared line."""
    found = {role.name: result.line(role) for role in result.roles}
    if (again := result.repeats) is not None:
        found[UNLEARNED.name] = result.line(again)
    return found


def cell(
    estimate: Estimate,
    sign: str = "",
    expected: int | None = None,
    exact: bool = False,
    count: bool = False,
) -> str:
    """Return an estimate as text, such as "0.912 ± 0.013 (n=2)", or a dash if it is absent.

    The number of seeds is shown if it differs from `expected`. An `exact` number, such as a cost, has
    no interval if all seeds agree. A `count` has no decimals where it is whole.
    """
    mean, half_width, n = estimate
    if n == 0 or mean != mean:
        return "—"
    text = _number(mean, sign, count)
    if half_width == half_width and not (exact and half_width == 0):
        text += f" ± {_number(half_width, '', count)}"
    return text if expected in (None, n) else f"{text} (n={int(n)})"


def _number(value: float, sign: str, count: bool) -> str:
    """Return a number with three decimals, fewer if it is large, or none if it is a whole count.

    Zero has no minus."""
    whole = (count and float(value).is_integer()) or abs(value) >= 1000
    form = ",.0f" if whole else ".1f" if abs(value) >= 10 else ".3f"
    text = format(value, sign + form)
    return text if text.strip("-+0.,") else text.replace("-", sign)
