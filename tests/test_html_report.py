"""The HTML report: what it holds, and how a browser shows it."""

import base64
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.compose import composed
from runner.figure.logits import LogitsFigure
from runner.figure.pareto import Distances, front
from runner.figure.runs import Runs
from runner.figure.scores import ScoresFigure
from runner.naming import command_of
from runner.pipeline import run
from runner.report import Report, show
from runner.report.html import write
from runner.report.html.page import HtmlPage
from runner.report.html.pictures import Present
from runner.report.html.runs import made, missing
from runner.report.text import MARKDOWN
from runner.results import Line
from tests.conftest import QUICK, plan_of
from tests.test_report import result

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
needs_browser = pytest.mark.skipif(not BROWSER, reason="needs Chromium: apt-get install chromium")

# Two methods, one with a second seed, and an attack that names the rows that leak.
OPTIONS = ["scenario=random", "scenario.count=40", "name=paged", *QUICK, "evaluation.references=4"]
RUNS = [
    ["method=random_labels", "seed=0"],
    ["method=random_labels", "seed=1"],
    ["method=finetune", "seed=0", "metric=[accuracy,confusion,ulira]", "evaluation.shadows=6"],
]

# A reader's actions, and what the page shows after each.
ACTIONS = """
<script>
const shown = () => first.filter((row) => !row.hidden && row.isConnected).length;
const order = () => [...body.rows].map((row) => row.cells[0].textContent.trim());
const commands = [...document.querySelectorAll(".command")];
const told = {};
const moved = (hash) => new Promise((done) => {
  addEventListener("hashchange", done, { once: true });
  location.hash = hash;
});
const clicked = async (clipboard) => {
  Object.defineProperty(navigator, "clipboard", { value: clipboard, configurable: true });
  commands[0].click();
  await new Promise((done) => setTimeout(done));
  return [commands[0].dataset.copied, getSelection().toString()];
};
const act = async () => {
heads[1].firstChild.click(); told.up = [order(), heads[1].ariaSort];
heads[1].firstChild.click(); told.down = [order(), heads[1].ariaSort];
words.value = "LABELS"; words.dispatchEvent(new Event("input")); told.filtered = [shown(), count.value];
words.value = ""; verdict.value = verdict.options[1].value; verdict.dispatchEvent(new Event("input"));
told.judged = [shown(), body.querySelectorAll("tr:not([hidden])").length];
told.linked = document.getElementById("made-2").open;
await moved("#made-1"); told.opened = document.getElementById("made-1").open;
await moved("");
let taken = "";
told.copied = [...(await clicked({ writeText: async (text) => { taken = text; } })), taken];
told.without = await clicked(undefined);
told.refused = await clicked({ writeText: () => Promise.reject(new Error("refused")) });
told.command = commands[0].textContent.trim();
document.querySelectorAll("details").forEach((each) => { each.open = true; });
const right = (each) => each.getBoundingClientRect().right;
told.beyond = commands.filter((each) => right(each) > right(each.parentElement) + 0.5).length;
told.width = innerWidth;
told.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
told.ground = getComputedStyle(document.body).backgroundColor;
told.fetched = performance.getEntriesByType("resource").map((each) => each.name)
  .filter((name) => !name.startsWith("data:"));
parent.postMessage(told, "*");
};
act();
</script>
"""

# A frame of a given width, since a window has at least 500 pixels. What the page tells, it leaves in an
# attribute of its body.
FRAME = """<meta name="color-scheme" content="light dark">
<body><script>onmessage = (each) => document.body.dataset.told = JSON.stringify(each.data)</script>
<iframe src="acted.html#made-2" width="{width}" height="900" style="border:0"></iframe>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of three real runs."""
    root = tmp_path_factory.mktemp("paged")
    for own in RUNS:
        overrides = [*OPTIONS, *own, f"paths.root={root}"]
        run(plan_of(*overrides), overrides)
    show(composed(["name=paged", f"paths.root={root}", "format=html"])[0], "paged")
    return root / "tables" / "paged.html"


def seen(page: Path, width: int, dark: bool) -> tuple[dict[str, Any], str]:
    """Return what the page told after a reader's actions, and the messages of its console."""
    acted = page.with_name("acted.html")
    acted.write_text(page.read_text().replace("</body>", f"{ACTIONS}</body>"))
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width=width))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        "--window-size=1400,1000",
        "--virtual-time-budget=3000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--dump-dom",
    ]
    done = subprocess.run(
        [BROWSER, *options, frame.as_uri()], capture_output=True, text=True, check=True, timeout=170
    )
    told = re.search(r'data-told="([^"]*)"', done.stdout)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    assert told is not None, console
    return json.loads(html.unescape(told[1])), console


def pictures(text: str) -> list[str]:
    """Return the figures of a page as SVG."""
    found = re.findall(r"data:image/svg\+xml;base64,([^\"]*)", text)
    return [base64.b64decode(each).decode() for each in found]


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_a_browser_shows_sorts_and_filters_it(page: Path, width: int, dark: bool) -> None:
    told, console = seen(page, width, dark)
    assert console == ""
    assert told["fetched"] == [], "it needs no network"
    (up, rising), (down, falling) = told["up"], told["down"]
    assert (rising, falling) == ("ascending", "descending")
    assert sorted(up) == ["fine-tuning", "original", "random labels", "retrained"]
    scores = dict(
        re.findall(r'<a href="#made-\d">([^<]*)</a></th>\s*<td data-value="([^"]*)"', page.read_text())
    )
    assert [float(scores[name]) for name in up] == sorted(map(float, scores.values()))
    assert [float(scores[name]) for name in down] == sorted(map(float, scores.values()), reverse=True)
    assert told["filtered"] == [1, "1 of 4 rows"]
    assert 1 <= told["judged"][0] <= 3, "the retrained models have no verdict"
    assert told["linked"] and told["opened"], "a link to a line opens its commands"
    assert told["copied"] == ["copied", "", told["command"]]
    for kept in (told["without"], told["refused"]):
        assert kept == ["selected: copy it with Ctrl+C or ⌘C", told["command"]]
    assert told["beyond"] == 0, "no command is wider than its column"
    assert told["width"] == width
    assert told["overflow"] == 0, "wide parts scroll for themselves"
    assert (told["ground"] == "rgb(255, 255, 255)") != dark


def test_it_holds_every_part_in_one_file(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)|@import|url\(", text), "nothing lies elsewhere"
    for title in ("Scores", "Metrics", "Curves", "Confusion matrices", "Outputs", "Leaks"):
        assert f"<h2>{title}</h2>" in text
    assert text.count("data:image/svg+xml;base64,") == 4
    assert "mean U-LiRA score of the row" in pictures(text)[-1], "the run of finetune has it"
    assert text.count('<table class="matrix">') == 4
    assert text.count('<th scope="row">zero</th>') == text.count('<th scope="col">nine</th>') == 4
    assert text.count("data:image/png;base64,") == 20, "an image of each row that leaks"
    assert re.search(r'"verdict unclear">unclear \(n=\d+\)<', text), "the seeds that would decide it"
    assert "unclear (n seeds and as many" in text and "retrained: mean ±" in text
    assert "accuracy on forgotten training rows ≈" in text and "random_labels" not in re.sub(
        r"<code>.*?</code>", "", text
    ), "words for people, identifiers only in commands"


def test_its_remarks_name_the_limit_of_the_data(page: Path) -> None:
    words = "data.limit=20: at most 20 rows per class, or per fine class, of training and test set alike"
    assert f"{words}; 200 test rows" in page.read_text()


def test_every_line_tells_the_command_of_each_of_its_runs(page: Path) -> None:
    commands = [
        html.unescape(each)
        for each in re.findall(r"<code>(python -m runner .*?)</code>", page.read_text())
    ]
    for own in RUNS:
        assert any(all(option in each for option in own) for each in commands)
    (missing_seed,) = [each for each in commands if each.endswith("seed=1") and "finetune" in each]
    assert "seed=0" not in missing_seed, "the run of finetune that is missing"


def test_a_printed_table_has_words_for_its_lines_and_scores(tmp_path: Path) -> None:
    made = replace(result("finetune", 0, 0.6), name="paper001_table1_cpu")
    published = HtmlPage(Report([made], ["test_accuracy"]), MARKDOWN, {}, tmp_path)._published()
    assert published is not None
    assert {"fine-tuning", "UNSIR", "bad teacher"} <= {texts[0] for texts in published[1]}
    assert "accuracy on retained test rows" in {texts[2] for texts in published[1]}
    assert not any("_" in text for texts in published[1] for text in texts[:3])


def test_a_page_takes_the_place_of_an_earlier_one_as_other_tables_do(tmp_path: Path) -> None:
    """One of another user's, which may not be written, is replaced wherever the folder may be."""
    file, kept = tmp_path / "made_up.html", tmp_path / "kept.html"
    file.write_text("earlier")
    kept.hardlink_to(file)
    cfg = composed([f"paths.root={tmp_path}"])[0]
    write(cfg, Report([result("finetune", 0, 0.6)], ["test_accuracy"]), tmp_path, "made_up")
    assert "fine-tuning" in file.read_text() and kept.read_text() == "earlier"


def test_without_the_store_a_sentence_stands_for_a_figure(page: Path, tmp_path: Path) -> None:
    root = tmp_path / "moved"
    shutil.copytree(page.parent.parent / "results", root / "results")
    show(composed(["name=paged", f"paths.root={root}", "format=html"])[0], "paged")
    text = (root / "tables" / "paged.html").read_text()
    none = "The store holds nothing of what this figure shows."
    assert text.count(none) == 3, "curves, outputs and leaks"
    assert text.count('<table class="matrix">') == 4, "matrices lie beside results"


def test_without_the_attack_a_sentence_names_what_makes_its_scores(page: Path, tmp_path: Path) -> None:
    shutil.copytree(page.parent.parent, tmp_path, dirs_exist_ok=True)
    stored = (tmp_path / "results" / "paged").glob("*.json")
    (attacked,) = [each for each in stored if "finetune" in each.read_text()]
    attacked.unlink()
    show(composed(["name=paged", f"paths.root={tmp_path}", "format=html"])[0], "paged")
    text = (tmp_path / "tables" / "paged.html").read_text()
    assert "No run has the U-LiRA score of each row: evaluation=privacy makes it." in text
    assert "log-odds of the row" in pictures(text)[-1] and "U-LiRA" not in pictures(text)[-1]


def test_a_table_without_format_writes_no_html(tmp_path: Path) -> None:
    Report([result("finetune", 0, 0.6)], ["test_accuracy"]).write(tmp_path, "plain")
    assert not list(tmp_path.glob("*.html"))


def test_missing_are_the_seeds_that_another_method_has_and_runs_that_diverged() -> None:
    overrides = ["method=b", "seed=0", "training.epochs=[1,2]"]
    results = [
        result("a", 0, 0.6),
        result("a", 1, 0.6),
        replace(result("b", 0, 0.7), overrides=overrides),
        result("c", 0, None),
        result("c", 1, 0.2),
    ]
    found = {(each.title, each.seed): each for each in missing(Report(results, ["test_accuracy"]))}
    assert set(found) == {("b", "1"), ("c", "0")}
    assert found["b", "1"].command == "python -m runner method=b 'training.epochs=[1,2]' seed=1"
    assert found["c", "0"].reason == "diverged: the loss became nan"
    more = missing(Report(results, ["test_accuracy"], seeds=3))
    assert {(each.title, each.seed) for each in more} == {*found, ("a", "2"), ("b", "2"), ("c", "2")}


def test_a_shared_model_has_one_command_for_each_seed() -> None:
    results = [result(method, seed, 0.6) for method in "ab" for seed in (0, 1)]
    found = made(Report(results, ["test_accuracy"]))
    assert [each.seed for each in found[Line("setting", "original")]] == [0, 1]


def test_a_run_that_several_commands_have_scored_tells_each() -> None:
    both = replace(result("a", 0, 0.6), overrides=["metric=[loss]"], also=[["metric=[accuracy]"]])
    for models in made(Report([both], ["test_accuracy"])).values():
        assert [each.commands for each in models] == [
            ["python -m runner 'metric=[loss]'", "python -m runner 'metric=[accuracy]'"]
        ]


def test_a_command_can_be_pasted_into_a_shell() -> None:
    assert command_of(["a=[1,2]", "b=it's"]) == """python -m runner 'a=[1,2]' 'b=it'"'"'s'"""


def test_a_picture_of_many_methods_shows_the_first_and_the_command_for_all(tmp_path: Path) -> None:
    results = [result(f"m{number:02}", 0, number / 100) for number in range(30)]
    report = Report(results, ["test_accuracy"])
    drawing = ScoresFigure("gradient_examples", ["test_accuracy"], joined=False)
    every = Runs(report, tmp_path)
    own = [line for line in report.lines() if line.shared_role is None]
    drawn = Present(report, tmp_path, "scores", drawing, every, 28)
    assert [line for line in drawn.models if line.shared_role is None] == own[:28]
    assert drawn.remark == "These are the first 28 of 30 methods; this draws all:"
    assert drawn.command == (
        f"python -m runner.figure name=made_up paths.root={tmp_path} 'figure=[scores]'"
    )
    whole = Present(report, tmp_path, "scores", drawing, every, None)
    assert whole.models == every.models and (whole.remark, whole.command) == ("", "")
    lacking = Present(report, tmp_path, "logits", LogitsFigure([], 20), every, 1)
    assert not lacking.models and "Not drawn, since nothing of it is stored" in lacking.remark


def test_the_front_holds_what_no_other_method_dominates() -> None:
    points = {
        Line("s", "exact"): Distances(0.0, 0.0, 9.0),
        Line("s", "cheap"): Distances(0.5, 0.1, 1.0),
        Line("s", "same"): Distances(0.5, 0.1, 1.0),
        Line("s", "worse"): Distances(0.5, 0.2, 1.0),
    }
    assert [line.cell for line in front(points)] == ["exact", "cheap", "same"]
