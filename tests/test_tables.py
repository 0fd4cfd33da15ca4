"""The tables of results/, README.md and docs/records.md hold the numbers of the files in results/."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean

import pytest
from omegaconf import OmegaConf

from runner.papers.rules import table
from runner.report.cells import half_width_of
from runner.report.words import score, spaced
from tests import paper002
from tests.commands import ROOT
from tests.conftest import CONF
from tests.shelf import COMMAND, PAGE, cost, judged, methods, requests, word, written
from tests.tables import NUMBER, Table, by_line, by_seed, means, rounds_to, tables

RESULTS = ROOT / "results"

# The CSVs of a page with several, by the beginning of the heading above a table.
CSVS = {
    "README.md": {"A real table": "mnist_five_methods"},
    "cifar10_five_methods.md": {"Five": "cifar10_five_methods", "Version 3": "cifar10_ascent"},
    "paper004_table1.md": {"paper004": "paper004_table1", "Seconds": "paper004_table1_seconds"},
    "metrics.md": {
        "A class: digit": "metrics_mnist_class",
        "Random rows: 500": "metrics_mnist_random",
        "A part": "metrics_cifar20_part",
        "Random rows: 100": "metrics_cifar10_random",
        "A class: class": "metrics_cifar10_class",
        "U-LiRA": "metrics_privacy",
    },
    "shelf.md": {
        "A class": "metrics_mnist_class",
        "Random rows": "metrics_mnist_random",
        "A part": "metrics_cifar20_part",
    },
}

# Columns that have other words than a report's.
COLUMNS = {
    "loss attack, AUC": "mia_loss_auc",
    "share called members (loss)": "mia_loss_share",
    "`mia_ssd_official` †": "mia_ssd_official",
    "`mia_loss_kit_official` †": "mia_loss_kit_official",
    "RMIA, AUC": "rmia_auc",
}

# The words of a verdict that a table shortens.
SHORT = {"under": "under-forgets", "over": "over-forgets", "?": "unclear"}

VERDICT = re.compile(r"(?:^|(?<= ))(under|over|matches|damaged|above|differs|\?)")

# A printed number beside ours.
PRINTED = re.compile(r"\(([\d.]+)\)")

# The fields that a cell may show, each with that of its interval: of a score, and of a gap.
VALUES = [("value", "half_width")]
GAPS = [("gap", "gap_half_width"), ("difference", "difference_half_width")]

# The fields of any other line that have the retrained models' numbers.
RETRAINED = [("null_mean", "null_half_width")]

# Paper 004's records: the first words of a line, and the variants at strength 1 and at a searched one.
RECORDS = {
    "every batch": ("amnesiac", "amnesiac_auto"),
    "a tenth of every update": ("layer_p10", "layer_p10_auto"),
    "a tenth of every row": ("per_sample_p10_1", "per_sample_p10_auto"),
    "a tenth of the gradient of every row": ("per_sample_p10_1", "per_sample_p10_auto"),
    "a hundredth": ("", "per_sample_p1_auto"),
    "the whole": ("factored_1", "factored"),
}

PAGES = [ROOT / "README.md", *sorted(RESULTS.glob("*.md"))]

Lines = Mapping[str, Mapping[str, Mapping[str, str]]]


def csv_of(page: Path, heading: str) -> Path | None:
    """Return the CSV of the report that stands under a heading of a page, if it has one."""
    own = {"Repaired": f"{page.stem}_repaired", "": page.stem}
    for start, name in CSVS.get(page.name, own).items():
        if heading.startswith(start) and (path := RESULTS / f"{name}.csv").is_file():
            return path
    return None


def reports(page: Path) -> Iterator[tuple[Table, Lines]]:
    """Yield the tables of a page that a report has written, and their numbers."""
    for each in tables(page):
        path = csv_of(page, each.heading)
        if path and (each.columns[0] in ("", "verdicts") or each.columns[0].startswith("gap to")):
            yield each, by_line(path)


def metrics_of(columns: Iterable[str], found: Lines) -> list[str | None]:
    """Return the metric of each column, or None of one whose words a metric alone knows."""
    names = {name for each in found.values() for name in each}
    known = {text: name for name in names for text in (spaced(name), score(name, {}))}
    return [COLUMNS.get(text) or known.get(text) for text in columns]


def shows(cell: str, each: Mapping[str, str], fields: Iterable[tuple[str, str]]) -> bool:
    """Return whether a cell shows one of these fields, with the interval and the verdict that it has."""
    verdict, number = VERDICT.search(cell), NUMBER.match(cell)
    if not each:  # the line has no such number
        return False
    if verdict and SHORT.get(verdict[1], verdict[1]) != each["verdict"]:
        return False
    return number is None or any(
        rounds_to(each[name], number[1]) and (number[2] is None or rounds_to(each[interval], number[2]))
        for name, interval in fields
    )


def is_line(cells: Mapping[str, str], label: str, found: Lines, fields: list[tuple[str, str]]) -> bool:
    """Return whether cells by metric show the line of this label."""
    original = label.replace("retrain", "original", 1)  # of the same request
    others = found[original] if label.startswith("retrain") else {}
    return all(
        shows(cell, found[label].get(metric, {}), fields)
        or (metric in others and shows(cell, others[metric], RETRAINED))
        for metric, cell in cells.items()
    )


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(reports(page))], ids=lambda page: page.stem
)
def test_a_table_shows_the_numbers_of_its_csv(page: Path) -> None:
    """A line whose label is in people's words is one of those of the CSV."""
    for each, found in reports(page):
        metrics = metrics_of(each.columns[1:], found)
        fields = GAPS if each.columns[0].startswith("gap to") else VALUES
        assert sum(metric is not None for metric in metrics) >= 2
        for label, *texts in each.lines:
            cells = {
                metric: text
                for metric, text in zip(metrics, texts, strict=True)
                if metric and text != "—"
            }
            labels = [label] if label in found else list(found)
            assert any(is_line(cells, name, found, fields) for name in labels), (each.heading, label)


@pytest.mark.parametrize("name", ["paper001_table1", "paper001_table2", "paper001_table3"])
def test_a_table_of_paper_001_shows_our_numbers_and_in_brackets_the_printed_ones(name: str) -> None:
    """Ours are means, with an interval where there are several seeds."""
    ours = by_seed(RESULTS / f"{name}_cpu_rows.csv")
    printed = {(cell.line, cell.metric): cell.value for cell in table(name).cells}
    (found,) = tables(RESULTS / f"{name}.md")
    for line, *texts in found.lines:
        for column, text in zip(found.columns[1:], texts, strict=True):
            metric, mine = column.replace(" ", "_"), NUMBER.match(text)
            role, theirs = "original" if line == "original" else "unlearned", PRINTED.findall(text)
            values = ours[line, role][metric]
            assert mine and rounds_to(fmean(values), mine[1]), (line, column)
            assert mine[2] is None or rounds_to(half_width_of(values), mine[2]), (line, column)
            assert len(theirs) == ((line, metric) in printed)
            assert all(rounds_to(printed[line, metric], each) for each in theirs), (line, column)


def test_the_tables_of_paper_002s_networks_are_those_of_the_rows() -> None:
    text = paper002.PAGE.read_text()
    assert text == paper002.written(), f"the page is out of date: run {paper002.COMMAND}"
    ours = means(RESULTS / "paper002_table1_cpu_rows.csv")["alexnet_amnesiac_partial", "unlearned"]
    found = re.search(r"a part taken back \| (\S+)(?: ± \S+)? \((\S+)\)", text)
    assert found and rounds_to(ours["test_forget_accuracy"], found[1]) and found[2] == "0.0000"


def pair(scores: Mapping[str, float], text: str) -> bool:
    """Return whether a cell, forgotten / retained, shows the two test accuracies."""
    names = ("test_forget_accuracy", "test_retain_accuracy")
    return all(
        rounds_to(scores[name], each) for name, each in zip(names, text.split(" / "), strict=True)
    )


@pytest.mark.parametrize(
    ("page", "first", "preset"),
    [
        ("results/paper004.md", 1, "paper004_table1"),
        ("results/paper004.md", 3, "paper004_table2"),
        ("docs/records.md", 1, "paper004_table2"),
    ],
)
def test_a_record_of_paper_004_has_the_accuracies_of_its_rows(
    page: str, first: int, preset: str
) -> None:
    """From a column on: at strength 1, and at a strength of its own."""
    ours = means(RESULTS / f"{preset}_cpu_rows.csv")
    (found,) = (
        each
        for each in tables(ROOT / page)
        if each.columns[0] == "record" and "searched" in each.columns
    )
    shown = [line for line in found.lines if line[0].startswith(tuple(RECORDS))]
    assert len(shown) == 5
    for label, *texts in shown:
        (variants,) = (each for start, each in RECORDS.items() if label.startswith(start))
        for variant, text in zip(variants, texts[first - 1 :], strict=False):
            assert pair(ours[variant, "unlearned"], text) if variant else not text, label


def test_the_lines_of_paper_004s_table_4_have_the_accuracies_of_their_rows() -> None:
    ours = means(RESULTS / "paper004_table4_cpu_rows.csv")
    found, *_ = tables(RESULTS / "paper004_table4.md")
    assert found.heading == "All fourteen lines" and len(found.lines) == 14
    for line, unlearned, repaired, _, size in found.lines:
        assert pair(ours[line, "unlearned"], unlearned) and rounds_to(
            ours[line, "unlearned"]["record_bytes"], size
        )
        assert pair(ours[line, "repaired"], repaired) if repaired else (line, "repaired") not in ours


@pytest.mark.parametrize(
    ("heading", "folder"),
    [("The search", "mnist_small_cnn"), ("For a part of a class", "cifar20_small_cnn")],
)
def test_a_table_of_a_search_shows_what_conf_tuned_holds(heading: str, folder: str) -> None:
    (found,) = (each for each in tables(RESULTS / "shelf.md") if each.heading == heading)
    files = {path.stem: path for path in (CONF / "tuned" / folder).glob("*.yaml")}
    assert {label.strip("`") for label, *_ in found.lines} == set(files)
    for label, own, best, at in found.lines:
        path = files[label.strip("`")]
        said = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line[0] == "#")
        told = re.search(r"average_gap: (\S+)\. The method's own options: (\S+)\. ", said)
        assert told and rounds_to(float(told[1]), best), label
        assert own == told[2] or rounds_to(float(told[2]), own), label
        options = re.findall(r"`(\w+)` ([^,]+)", at)
        shown = OmegaConf.create("\n".join(f"{name}: {value}" for name, value in options) or "{}")
        assert shown == OmegaConf.load(path).method, label


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["matches", "matches", "above"], "yes"),
        (["matches", "unclear"], "unclear"),
        (["unclear", "damaged"], "no: damaged"),
        (["damaged", "under-forgets", "unclear"], "no: under-forgets, damaged"),
    ],
)
def test_the_word_for_a_method_is_that_of_its_worst_verdict(verdicts: list[str], expected: str) -> None:
    assert word(verdicts) == expected


def test_the_shelf_holds_the_words_and_costs_of_its_csvs() -> None:
    text = PAGE.read_text()
    assert written(text) == text, f"{PAGE.name} is out of date: run {COMMAND}"


def test_the_shelfs_prose_begins_with_the_word_and_the_cost_on_a_class() -> None:
    of_class = requests()["digit 3"]
    _, prose = PAGE.read_text().split("## Does each behave as claimed?")
    told = re.findall(r"\n- `(\w+)`: \*[^*]+\*\. \*\*(\w+)\*\* \(([\d.]+) ×\)", prose)
    assert sorted(label for label, *_ in told) == sorted({*methods(of_class)} - {"original"})
    for label, said, factor in told:
        expected = judged(of_class[label]).partition(":")[0]
        assert (said.lower(), factor) == (expected, cost(of_class, label)), label
    assert len(re.findall(r"\bYes\b", prose)) == sum(said == "Yes" for _, said, _ in told)
