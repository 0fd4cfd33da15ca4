"""Tables as text: they fit the terminal and say what is left out, and LaTeX is complete."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from runner.compose import composed
from runner.report import Report
from runner.report.cells import Estimate
from runner.report.latex import escaped
from runner.report.text import cell
from tests.test_report import COLUMNS, result

DEFAULT = list(composed([])[0].table.columns)


def full(methods: int = 3) -> Report:
    """Return a report whose lines have all default columns."""
    results = [result(f"method_{number}", seed, 0.3) for number in range(methods) for seed in (0, 1)]
    for made in results:
        for place, scores in enumerate(made.scores.values()):
            scores.update(dict.fromkeys(DEFAULT, (place + made.seed) / 10))  # type: ignore[attr-defined,operator]
    return Report(results, DEFAULT)


@pytest.mark.parametrize("width", [40, 80, 120, 400])
def test_a_table_is_as_wide_as_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = full().terminal()
    tables = text.split("\n\nmean ±")[0]
    assert max(map(len, tables.splitlines())) <= width
    assert ("left out to fit" in text) == (width < 400)


def test_what_is_left_out_are_the_last_columns_and_they_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = full().terminal()
    (remark,) = re.findall(r"left out to fit a terminal of 80 characters: (.*?) of the scores", text)
    shown = text.split("gap to retrain")[0]
    left_out = remark.split(", ")
    assert left_out == DEFAULT[-len(left_out) :] and len(left_out) < len(DEFAULT)
    heads = len(re.findall(r"\d ± \d", next(x for x in shown.splitlines() if x.startswith("original"))))
    assert 0 < heads < len(DEFAULT)
    assert all(name in full().csv() for name in DEFAULT)


def test_without_a_terminal_a_table_is_80_characters_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "left out to fit a terminal of 80 characters" in full().terminal()


@pytest.mark.parametrize("count", [True, False])
def test_a_cost_that_a_method_logs_as_infinite_is_shown(count: bool) -> None:
    assert cell(Estimate(float("inf"), float("nan"), 1), count=count) == "inf"


def test_counts_are_whole_and_zero_has_no_minus() -> None:
    assert cell(Estimate(650.0, float("nan"), 1), count=True) == "650"
    assert cell(Estimate(650.5, 3.0, 2), count=True) == "650.5 ± 3"
    assert cell(Estimate(0.0, float("nan"), 1), count=True) == "0"
    assert cell(Estimate(-0.0004, float("nan"), 1)) == "0.000"
    assert cell(Estimate(-0.0004, 0.001, 2), "+") == "+0.000 ± 0.001"
    assert cell(Estimate(-0.0006, float("nan"), 1), "+") == "-0.001"


def test_costs_print_whole_and_shares_and_seconds_do_not() -> None:
    made = result("finetune", 0, 1.0, retrained=0.0)
    made.scores["original"]["test_accuracy"] = 1.0  # type: ignore[index]
    made.costs["unlearned"].update(seconds=3.0, selected=0.0)  # type: ignore[attr-defined]
    text = Report([made], [*COLUMNS, "seconds", "selected"]).markdown()
    (line,) = [x for x in text.split("gap")[0].splitlines() if x.startswith("| fine-tuning")]
    assert [each.strip() for each in line.strip("|").split("|")][1:] == ["1.000", "1,000", "3.000", "0"]


def test_latex_says_what_it_needs_and_has_a_caption_and_a_label() -> None:
    text = Report([result("random_labels", seed, 0.2 + seed / 10) for seed in range(3)], COLUMNS).latex()
    assert text.startswith(r"% needs \usepackage{booktabs} and \usepackage{adjustbox} in the preamble")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\caption{") == 2
    assert r"\label{tab:made_up}" in text and r"\label{tab:made_up-gap}" in text
    assert r"\toprule" in text and "random labels & 0.300 $\\pm$ 0.248" in text
    assert r"$-$0.200 $\pm$ 0.248" in text, "a minus is no hyphen"


def test_a_label_has_no_character_that_means_something_to_latex() -> None:
    made = replace(result("finetune", 0, 0.4), name="50% of_a #1")
    assert r"\label{tab:50--of_a--1}" in Report([made], COLUMNS).latex()


def test_latex_escapes_what_means_something_to_it() -> None:
    assert escaped(r"a_b & 10 % of {x} #1 $2 ~ ^ \y") == (
        r"a\_b \& 10 \% of \{x\} \#1 \$2 \textasciitilde{} \textasciicircum{} \textbackslash{}y"
    )
    assert escaped("l1-sparse −1 † — ε") == r"l1-sparse $-$1 $\dagger$ --- $\varepsilon$"


TEX = next((name for name in ("tectonic", "pdflatex", "xelatex") if shutil.which(name)), None)


@pytest.mark.skipif(TEX is None, reason="no TeX is installed")
def test_latex_compiles(tmp_path: Path) -> None:
    body = full().latex()
    head = "\\documentclass{article}\\usepackage{booktabs}\\usepackage{adjustbox}\\begin{document}\n"
    (tmp_path / "page.tex").write_text(f"{head}{body}\\end{{document}}\n")
    flags = [] if TEX == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    subprocess.run([str(TEX), *flags, "page.tex"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "page.pdf").exists()
