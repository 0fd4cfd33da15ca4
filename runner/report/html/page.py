"""The page: a report's sections, as its template reads them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from omegaconf import OmegaConf

from conf import FOLDER
from data.disk import replacing
from data.meanings import meaning
from data.sources import Source
from runner.figure.confusion import ConfusionFigure
from runner.figure.drawing import Drawing
from runner.figure.runs import Runs
from runner.papers.text import HEADS, line, printed_table
from runner.papers.verdicts import Verdict, verdicts
from runner.published import comparable
from runner.report.cells import ABSENT, interval
from runner.report.html.leaks import leaks
from runner.report.html.pictures import FEW, Present, matrices, picture
from runner.report.html.runs import Missing, made, missing, unfinished
from runner.report.page import Page
from runner.report.table import Report
from runner.report.text import COSTS, MARKDOWN, cell
from runner.report.words import choice, option, spaced, variant
from runner.results import Line
from runner.roles import REFERENCE

if TYPE_CHECKING:
    from omegaconf import DictConfig

# The folder of the template, its styles and its script.
HERE = Path(__file__).parent

# The figures of a page: the one that shows all methods, those with a curve for each, and the one that is
# written as tables.
WHOLE, CURVES, TABLES = "pareto", ("curves", "logits", "leaks"), "confusion"

# The signs of the directions of scores.
SIGNS = {"higher": "↑", "lower": "↓", "reference": "≈"}


class ScoreCell(NamedTuple):
    """A cell of the table. Numbers are None, and texts empty, where there are none.

    `needed` is the number of seeds and retrained models that would decide an unclear verdict. `ends` are
    the ends of a share's 95 % interval, from 0 to 1.
    """

    text: str
    value: float | None
    gap: str
    distance: float | None
    verdict: str
    needed: int | None
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class HtmlPage(Page):
    """A report as one HTML file. `drawings` are its figures; `root` holds results and store."""

    whole: ClassVar[bool] = True

    drawings: Mapping[str, Drawing]
    root: Path

    def text(self) -> str:
        """Return the file. Raise UserError if every run failed."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(HERE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("page.html").render(self._sections())

    def _sections(self) -> dict[str, Any]:
        report = self.report
        lines = report.lines()
        others = [line for line in lines if line.cell != REFERENCE.name]
        rows = [
            (report.titles[line], line, [self._score(line, n) for n in self._columns]) for line in lines
        ]
        confusion = self.drawings[TABLES]
        assert isinstance(confusion, ConfusionFigure)
        every = Runs(report, self.root)
        drawn = {
            kind: Present(report, self.root, kind, each, every, None if kind == WHOLE else FEW)
            for kind, each in self.drawings.items()
        }
        return {
            "title": spaced(report.results[0].name),
            "facts": self._facts(),
            "heads": [(self.style.heading(n, report.title(n)), self._sign(n)) for n in self._columns],
            "rows": rows,
            "verdicts": Counter(
                score.verdict for _, _, scores in rows for score in scores if score.verdict
            ),
            "remarks": self._remarks(others, self._compared, [], []),
            "glossary": self._glossary(),
            "published": self._published(),
            "figures": {kind: picture(drawn[kind]) for kind in (WHOLE, *CURVES)},
            "matrices": matrices(drawn[TABLES], confusion.matrix),
            "confusion": drawn[TABLES],
            "leaks": leaks(report, self.root),
            "runs": made(report),
            "titles": report.titles,
            "missing": self._missing(),
        }

    def _facts(self) -> dict[str, str]:
        """Return what all runs are about: their choices, seeds and dates."""
        results = self.report.results
        facts = {
            group: ", ".join(sorted({choice(result, group) for result in results}))
            for group in ("dataset", "model", "scenario")
        }
        facts["seeds"] = ", ".join(map(str, sorted({result.seed or 0 for result in results})))
        made = [each for result in results for each in result.provenance.values()]
        dates = {each["date"][:10] for each in made if "date" in each}
        facts["made"] = " to ".join(sorted({min(dates), max(dates)})) if dates else "unknown"
        return facts

    def _score(self, line: Line, column: str) -> ScoreCell:
        report = self.report
        estimate = report.estimates.get((line, column), ABSENT)
        found = report.comparisons.get((line, column))
        gap = report.gap(line, column) if line.cell != REFERENCE.name and column not in COSTS else ABSENT
        share = report.is_share(column) and estimate.half_width == estimate.half_width
        low, high = interval(estimate, share)
        return ScoreCell(
            self._cell(line, column),
            _number(estimate.mean),
            "" if gap.n == 0 else cell(gap, "+", self._expected, count=column in report.counts),
            _number(abs(gap.mean)),
            (found.verdict or "") if found and gap.n else "",
            found.needed if found else None,
            (max(low, 0.0), min(high, 1.0)) if share else None,
        )

    def _sign(self, column: str) -> str:
        said = meaning(column, self.report.about)
        return "" if said is None else SIGNS[said["better"]]

    def _glossary(self) -> list[dict[str, str]]:
        """Return the name, the meaning and the direction of every column that results explain."""
        found = []
        for column in self._columns:
            if (said := meaning(column, self.report.about)) is not None:
                head = self.style.heading(column, self.report.title(column))
                found.append({**said, "head": head, "column": column, "sign": SIGNS[said["better"]]})
        return found

    def _missing(self) -> list[Missing]:
        """Return what sweeps have left, and what else methods lack."""
        left = unfinished(self.root, self.report.results[0].name)
        told = {frozenset(each.command.split()) for each in left}
        own = missing(self.report)
        return left + [each for each in own if frozenset(each.command.split()) not in told]

    def _published(self) -> tuple[Sequence[str], list[list[str]]] | None:
        """Return the heads and the body of a table of a paper's numbers and ours, if there are some.

        Numbers of a printed table whose preset this is have verdicts.
        """
        report = self.report
        if (printed := printed_table(report.results[0].name, self.root)) is not None:
            names = {result.variant: choice(result, "method") for result in report.results}
            return HEADS, [self._printed(each, names) for each in verdicts(*printed)]
        published = comparable(report.published, report.results)
        if not published:
            return None
        return self._beside(published)

    def _printed(self, found: Verdict, names: Mapping[str, str]) -> list[str]:
        """Return the texts of a printed cell below `HEADS`, its line and its score in words. `names` are
        those of the lines that ran."""
        _, model, _, *texts = line(found)
        own = found.cell.line
        name = names.get(own, variant(own, option("method", own)))
        return [name, model, self.report.title(found.cell.metric), *texts]


def write(cfg: "DictConfig", report: Report, folder: Path, name: str) -> Path:
    """Write `name`.html to a folder, and return its path. The options of figures are those of `cfg`.

    Raise UserError if an option of a figure is wrong, or if every run failed.
    """
    path = folder / f"{name}.html"
    text = HtmlPage(report, MARKDOWN, _drawings(cfg), Path(cfg.paths.root)).text()
    with replacing(path) as scratch:
        scratch.write_text(text)
    return path


def _drawings(cfg: "DictConfig") -> dict[str, Drawing]:
    """Return the figures of a page; those that `cfg` chooses have its options."""
    from runner.plan import build, build_chosen

    kinds = (TABLES, WHOLE, *CURVES)
    nodes = {kind: OmegaConf.load(FOLDER / "figure" / f"{kind}.yaml") for kind in kinds}
    chosen = {kind: node for kind, node in cfg.figure.items() if kind in kinds and "_target_" in node}
    source = build(cfg.dataset, Source, "dataset")
    return build_chosen(OmegaConf.create({**nodes, **chosen}), Drawing, "figure", source)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
