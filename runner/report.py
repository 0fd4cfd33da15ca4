"""Tables from rows: mean ± 95 % t-interval over seeds, and the gap to the retrained reference, paired
by seed.

    python -m runner.report name=digits_small_cnn_whole_class

prints the table and writes it as Markdown, CSV and LaTeX to <paths.root>/tables. Any option of the
runner may follow; `name`, `paths.root` and `table` are the ones that matter.
"""

import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from runner.naming import run_name
from runner.published import Published, read
from runner.results import SHARED, Results, Row, shared_role, tidy

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

COSTS = {
    "gradient_examples", "forward_examples", "seconds", "peak_bytes", "record_bytes", "record_seconds"
}  # fmt: skip

# Shown of every method that reads a record, whatever else is: what the record takes, and unlearning.
OF_RECORDS = ("record_bytes", "record_seconds", "seconds")


@dataclass(frozen=True)
class Report:
    """The rows of one name as text. `columns` are metrics and costs in order; `seeds` how many values
    every cell should have: cells with fewer say so. `published` are a paper's numbers, to stand beside
    those of the rows that are lines of its table."""

    rows: list[Row]
    columns: Sequence[str]
    seeds: int | None = None
    published: Published = field(default_factory=dict)

    def terminal(self) -> str:
        """Scores, gaps and remarks as aligned text."""
        return self._text("simple")

    def markdown(self) -> str:
        return self._text("pipe")

    def latex(self) -> str:
        return self._text("latex_booktabs")

    def csv(self) -> str:
        """One line per cell: means, half-widths and n of value and gap, as full numbers."""
        cells, labels = self.cells.reset_index(), self.labels
        lines = [labels[line] for line in zip(cells.pop("setting"), cells.pop("cell"), strict=True)]
        cells.insert(0, "line", lines)
        return str(cells.to_csv(index=False))

    def _text(self, style: str) -> str:
        cells, labels = self.cells, self.labels
        found = set(cells.index.get_level_values(2))
        recorded = OF_RECORDS if "record_bytes" in found else ()
        wanted = dict.fromkeys([*self.columns, *recorded])
        present = [column for column in wanted if column in found]
        with_gap = set(cells.index.get_level_values(2)[cells["gap"].notna()])
        gaps = [column for column in present if column not in COSTS and column in with_gap]
        lines = self.lines()
        parts = [_render(style, "", lines, labels, cells, present, "", self._expected(cells))]
        others = [line for line in lines if line[1] != "reference"]
        if cells["gap"].notna().any() and gaps:
            expected = self._expected(cells)
            parts.append(_render(style, "gap to retrain", others, labels, cells, gaps, "gap_", expected))
        if self.published:
            parts.append(self._beside(style, cells))
        comment = "% " if style.startswith("latex") else ""
        return "\n\n".join([*parts, *(comment + text for text in self._remarks(cells))]) + "\n"

    def _beside(self, style: str, cells: "pd.DataFrame") -> str:
        """Our numbers, and the paper's in brackets; the lines are those of its table, and ours."""
        from tabulate import tabulate

        ours: dict[str, dict[str, tuple[str, str]]] = {}
        for row in self.rows:
            places = {role: (row.setting, row.cells.get(role, role)) for role in row.scores}
            if (again := shared_role(row)) is not None:
                places["unlearned"] = (row.setting, again)
            ours.setdefault(row.names.get("variant", row.names["method"]), {}).update(places)
        lines = dict.fromkeys([line for line, _, _ in self.published] + sorted(ours))
        heads = list(dict.fromkeys((role, metric) for _, role, metric in self.published))
        numbers = cells[["value", "half_width"]]
        found = {
            index: tuple(values) for index, values in zip(numbers.index, numbers.to_numpy(), strict=True)
        }
        body = []
        for line in lines:
            texts = [line]
            for role, metric in heads:
                index = (*ours.get(line, {}).get(role, ("", "")), metric)
                text = _cell((*found.get(index, (None, None)), 1), 1, False, False)
                theirs = self.published.get((line, role, metric))
                texts.append(text if theirs is None else f"{text} ({theirs:g})")
            body.append(texts)
        broken = "\n" if style == "simple" else " "
        names = ["ours (paper's)", *(broken.join([role, *metric.split("_")]) for role, metric in heads)]
        align = ("left", *("right" for _ in heads))
        table = tabulate(body, headers=names, tablefmt=style, disable_numparse=True, colalign=align)
        return str(table)

    @cached_property
    def cells(self) -> "pd.DataFrame":
        """(setting, cell, metric) → value, half_width, n, gap, gap_half_width, gap_n."""
        frame = tidy(self.rows)
        groups = frame.groupby(["setting", "cell", "metric"], sort=False)
        value = groups["value"].agg(["mean", "std", "count"])
        gap = groups["gap"].agg(["mean", "std", "count"])
        value.insert(1, "half_width", half_width(value))
        gap.insert(1, "half_width", half_width(gap))
        value = value.drop(columns="std").rename(columns={"mean": "value", "count": "n"})
        gap = gap.drop(columns="std").rename(columns={"mean": "", "count": "n"})
        gap.columns = ["gap", "gap_half_width", "gap_n"]
        return value.join(gap)

    def lines(self) -> list[tuple[str, str]]:
        """(setting, cell) in the order of the table: settings as their originals are called, and in each
        the original, methods by name, the reference; numbers in names by their size."""
        labels = self.labels
        rank = {"original": 0, "reference": 2}

        def place(line: tuple[str, str]) -> Any:
            setting, cell = line
            shared = _by_size(labels[setting, "original"])
            return shared, setting, rank.get(cell, 1), _by_size(labels[line])

        return sorted(set(self.cells.droplevel("metric").index), key=place)

    @cached_property
    def labels(self) -> dict[tuple[str, str], str]:
        """What each (setting, cell) is called: its name, the choices in which lines of the same
        name differ, and the options in which those of the same choices do."""
        labels = {}
        for line, (name, options) in self._named.items():
            alike = [other for own, other in self._named.values() if own == name]
            same = [other for other in alike if _choices(other) == _choices(options)]
            differing = [
                f"{option.removeprefix('method.')}={_short(value)}"
                for option, value in options.items()
                if any(other.get(option) != value for other in (alike if _is_choice(option) else same))
            ]
            labels[line] = f"{name} ({', '.join(differing)})" if differing else name
        return labels

    @property
    def names(self) -> dict[tuple[str, str], str]:
        """The name of each (setting, cell), whatever its options: its method, or a line of a table."""
        return {line: name for line, (name, _) in self._named.items()}

    @cached_property
    def _named(self) -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
        """(setting, cell) → its name, and its choices and options."""
        lines: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        for row in self.rows:
            options = {
                name: value for name, value in row.names.items() if name not in ("method", "variant")
            }
            options |= {as_option(name): value for name, value in row.parameters.items()}
            shared = {name: value for name, value in options.items() if not _is_own(name)}
            for role, method in SHARED.items():
                lines[row.setting, role] = (method, shared)
            own = {name: value for name, value in options.items() if not name.startswith("repair.")}
            name = row.names.get("variant", row.names["method"])
            lines[row.setting, row.cells["unlearned"]] = (name, own)
            if "before" in row.cells:
                lines[row.setting, row.cells["before"]] = (f"{name}, before the request", own)
            if "repaired" in row.cells:
                lines[row.setting, row.cells["repaired"]] = (f"{name}, repaired", options)
        return lines

    def _expected(self, cells: "pd.DataFrame") -> int:
        return self.seeds or int(cells["n"].max() if len(cells) else 0)

    def _remarks(self, cells: "pd.DataFrame") -> list[str]:
        n = int(cells["n"].max()) if len(cells) else 0
        remarks = []
        if n > 1:
            remarks.append(f"mean ± 95 % t-interval over {n} seeds; gaps are paired by seed")
        labels = self.labels
        for row in self.rows:
            if row.status != "done":
                label = labels[row.setting, row.cells["unlearned"]]
                remarks.append(f"{label}, seed {row.seed}: {row.status}: {row.error}")
        made = [made for row in self.rows for made in row.provenance.values()]
        for what in ("commit", "device", "threads", "torch"):
            found = sorted({str(values[what])[:20] for values in made})
            if len(found) > 1:
                remarks.append(f"made with more than one {what}: {', '.join(found)}")
        if any(values["dirty"] for values in made):
            remarks.append("made with uncommitted changes")
        absent = set(self.columns) - set(cells.index.get_level_values("metric"))
        if absent and len(cells):
            remarks.append(f"no run has these columns: {', '.join(sorted(absent))}")
        return remarks


def _by_size(label: str) -> list[str | float]:
    """Words and numbers in turn, for sorting."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [float(part) if number % 2 else part for number, part in enumerate(parts)]


def _is_choice(option: str) -> bool:
    return "." not in option


def _choices(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if _is_choice(name)}


def half_width(groups: "pd.DataFrame") -> Any:
    """Half the 95 % Student interval of a mean: t₀.₉₇₅,ₙ₋₁ · s / √n; not a number for n = 1."""
    import numpy as np
    from scipy.special import stdtrit

    n = groups["count"].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return stdtrit(n - 1, 0.975) * groups["std"].to_numpy() / np.sqrt(n)


def _render(
    style: str,
    corner: str,
    lines: list[tuple[str, str]],
    labels: dict[tuple[str, str], str],
    cells: "pd.DataFrame",
    columns: list[str],
    prefix: str,
    expected: int,
) -> str:
    from tabulate import tabulate

    numbers = cells[["value", "half_width", "n"] if not prefix else ["gap", "gap_half_width", "gap_n"]]
    found = {index: tuple(line) for index, line in zip(numbers.index, numbers.to_numpy(), strict=True)}
    signed = bool(prefix)
    body = [
        [
            labels[setting, cell],
            *(
                _cell(
                    found.get((setting, cell, column), (None, None, 0)),
                    expected,
                    signed,
                    column in COSTS,
                )
                for column in columns
            ),
        ]
        for setting, cell in lines
    ]
    broken = "\n" if style == "simple" else " "
    heads = [corner, *(broken.join(column.split("_")) for column in columns)]
    align = ("left", *("right" for _ in columns))
    return str(tabulate(body, headers=heads, tablefmt=style, disable_numparse=True, colalign=align))


def _cell(found: Sequence[Any], expected: int, signed: bool, exact: bool) -> str:
    """A mean with its interval; counts that are `exact` have none where all seeds agree."""
    value, half, n = found
    if value is None or n == 0 or value != value:
        return "—"
    text = _number(value, "+" if signed else "")
    if half == half and not (exact and half == 0):
        text += f" ± {_number(half)}"
    return text if n == expected else f"{text} (n={int(n)})"


def _number(value: float, sign: str = "") -> str:
    """Three decimals for shares, fewer for larger numbers."""
    for bound, form in ((10, ".3f"), (1000, ".1f")):
        if abs(value) < bound:
            return format(value, sign + form)
    return format(value, sign + ",.0f")


def as_option(parameter: str) -> str:
    """A flat identity's name as the option that sets it."""
    return parameter.removeprefix("pretrain.").replace("data.source.", "dataset.")


def _is_own(option: str) -> bool:
    """Whether an option belongs to the method alone and not to what methods are compared on."""
    return option.startswith(("method.", "repair.", "recorder.")) or option == "budget"


def _short(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def write_tables(report: Report, folder: Path, name: str) -> None:
    """The report as Markdown, CSV and LaTeX files."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (
        ("md", report.markdown()),
        ("csv", report.csv()),
        ("tex", report.latex()),
    ):
        (folder / f"{name}.{suffix}").write_text(text)


def show(cfg: "DictConfig", name: str) -> None:
    """Prints the table of a name and writes its files."""
    root = Path(cfg.paths.root)
    published = {} if cfg.table.published is None else read(cfg.table.published)
    rows = Results(root / "results").rows(name)
    report = Report(rows, list(cfg.table.columns), cfg.table.seeds, published)
    print(f"\n{name}\n\n{report.terminal()}")
    write_tables(report, root / "tables", name)


class TableAfterSweep(Callback):
    """Prints the table when the last job of a sweep is done, on the machine that launched it, and
    fails the sweep if a job failed."""

    def on_multirun_end(self, config: "DictConfig", **kwargs: Any) -> None:
        from conf import Until
        from runner.errors import message_of
        from runner.sweep import FAILURE, NAME

        folder = Path(config.hydra.sweep.dir)
        names = sorted({path.read_text() for path in folder.glob(f"*/{NAME}")})
        failed = sorted(folder.glob(f"*/{FAILURE}"))
        wrong = [f"{len(failed)} runs of the sweep failed, as told above"] if failed else []
        for name in names if config.until is Until.end else []:
            if not any((Path(config.paths.root) / "results" / name).glob("*.json")):
                continue  # every job failed, and has said why
            try:
                show(config, name)
            except Exception as error:
                wrong.append(message_of(error) or traceback.format_exc())
        if wrong:
            # Hydra turns an exception of a callback into a warning, and lets an exit pass
            sys.exit("error: " + "\n".join(wrong))


def main(overrides: list[str]) -> None:
    from runner.compose import composed

    cfg, names = composed(overrides)
    show(cfg, run_name(cfg.name, names))


if __name__ == "__main__":
    from runner.errors import exit_with_message

    with exit_with_message():
        main(sys.argv[1:])
