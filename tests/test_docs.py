"""README.md and docs/: the site builds, every command is checked, and every example runs."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from runner.arguments import arranged, renamed
from runner.compose import jobs, planned
from runner.store.__main__ import _parsed as of_store
from tests.commands import PAGES, Command, all_commands, blocks, inline, write_files
from tests.composing import composed_once
from tests.counts import COMMAND, written
from tests.counts import PAGES as COUNTED
from tests.forked import ROOT, run_module

# Pages whose commands are run, in their order; those of the others are composed and planned.
RUN = (ROOT / "README.md", ROOT / "docs" / "start.md", ROOT / "docs" / "add.md")

# Options of commands that need the files of a data set, or train many models: these are planned, too.
LARGE = ("dataset=cifar10", "experiment=", "evaluation=privacy")

# Options by which a run takes a second instead of ten.
SMALL = ["threads=1", "data.limit=50", "training.epochs=2", "tracking=off"]

# Options that are added to a command that is run, by its module.
ADDED = {
    "runner": SMALL,
    "runner.doctor": SMALL,
    "runner.report.agreement": ["name=digits_small_cnn_whole_class"],
}

# Programs of others, whose commands are not checked.
OTHERS = {"pip", "uv", "pytest", "wandb", "eval", "sha256sum", "mkdocs"}


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    if not all(map(find_spec, ("material", "mkdocstrings"))):
        pytest.skip("needs mkdocs-material and mkdocstrings: uv run has them")
    # with --quiet it counts no warning, such as that of a link to no page
    build = ["mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", *build], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("__pycache__"))
    assert "Return the unlearned model on the device" in (tmp_path / "api.html").read_text()
    assert "an experiment runner for" in (tmp_path / "index.html").read_text().lower()


@pytest.mark.parametrize("figure", sorted((ROOT / "results").glob("*.svg")), ids=lambda path: path.name)
def test_a_page_shows_every_figure(figure: Path) -> None:
    pages = [page.read_text() for page in (ROOT / "results").glob("*.md")]
    assert any(f"]({figure.name})" in text for text in pages)


@pytest.mark.parametrize("page", COUNTED, ids=lambda page: page.name)
def test_the_pages_hold_the_counts_of_verdicts(page: Path) -> None:
    assert written(page) == page.read_text(), f"{page.name} is out of date: run {COMMAND}"


def plan_jobs(arguments: list[str]) -> None:
    """Plan a run, or each job of a sweep; of jobs that differ in their seed or shadow alone, one.

    Of a preset the first job is planned: each of its cells is built by another test.
    """
    if any(text.startswith("experiment=") for text in arguments):
        return plan_first(arguments)
    cells = {
        tuple(text for text in job if not text.startswith(("seed=", "shadow="))): job
        for job in jobs_of(arguments)
    }
    for job in cells.values():
        plan(job)


def plan_first(arguments: list[str]) -> None:
    """Plan a run, or the first job of a sweep."""
    for job in jobs_of(arguments)[:1]:
        plan(job)


def jobs_of(arguments: list[str]) -> list[list[str]]:
    """Return the overrides of each job of a command."""
    given = arranged(arguments)
    options = [text for text in given if text[:1] != "-"]
    if "--cfg" in given or "--help" in given:
        return []
    return jobs(options) if "-m" in given else [options]


def plan(job: list[str]) -> None:
    planned(*composed_once(*job), job)


def compose_options(arguments: list[str]) -> None:
    """Compose the options of a command on stored results."""
    composed_once(*renamed([text for text in arguments if "=" in text]))


def find_files(arguments: list[str]) -> None:
    """Find the files that a command names."""
    for name in arguments:
        assert (ROOT / name).exists(), name


def find_groups(arguments: list[str]) -> None:
    """Find the groups of benchmarks."""
    for group in arguments:
        assert find_spec(f"tests.bench.{group}") is not None, group


# What is done with the arguments of a command, by its module.
CHECKS: dict[str, Callable[[list[str]], object]] = {
    "runner": plan_jobs,
    "runner.bench": find_groups,
    "runner.store": of_store,
    "runner.doctor": compose_options,
    "runner.figure": compose_options,
    "runner.score": compose_options,
    "runner.report": compose_options,
    "runner.report.agreement": compose_options,
    "runner.tracking": compose_options,
    "runner.dashboard": compose_options,
    "runner.tune": jobs,
}


def commands_to_run(page: Path) -> list[Command]:
    """Return the commands in the blocks of a page that are run."""
    found = blocks(page) if page in RUN else ()
    return [each for each in found if each.module and not any(o in each.text for o in LARGE)]


def commands_to_check() -> list[Command]:
    """Return the commands of all pages that are not run, each once."""
    found = {
        (*each.words, *each.variables.items()): each
        for page in PAGES
        for run in [commands_to_run(page)]
        for each in (*blocks(page), *inline(page))
        if each not in run
    }
    return list(found.values())


@pytest.mark.parametrize(
    "command",
    commands_to_check(),
    ids=lambda command: f"{command.page}: {command.text}",
)
def test_a_command_can_be_carried_out(command: Command) -> None:
    check_command(command, CHECKS)


def check_command(command: Command, checks: Mapping[str, Callable[[list[str]], object]]) -> None:
    """Check the program of a command, and its arguments as its module says."""
    if command.module is None:
        assert command.words[0] in OTHERS, f"{command.words[0]} is no program that a reader has"
    elif command.module in checks:
        checks[command.module](command.arguments)
    else:
        assert find_spec(command.module) is not None and not command.arguments


@pytest.mark.parametrize("page", sorted((ROOT / "results").glob("*.md")), ids=lambda page: page.name)
def test_the_commands_of_a_result_can_be_carried_out(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a sweep its first cell: each cell of a preset is built by another test."""
    for command in blocks(page):
        check_command(command, {**CHECKS, "runner": plan_first, "pytest": find_files})
    assert "is now" not in capsys.readouterr().err, "it has the former name of an option"


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_their_order(page: Path, tmp_path: Path) -> None:
    """The files that the page shows lie beside them."""
    write_files(page, tmp_path)
    done = commands_to_run(page)
    for command in done:
        assert command.module is not None
        paths = {k: str(tmp_path / v) for k, v in command.variables.items()}
        added = ADDED.get(command.module, [])
        ended = run_module(command.module, *command.arguments, *added, cwd=tmp_path, **paths)
        assert ended.returncode == 0, f"{command.text}\n{ended.stderr}"
    assert len(done) >= 5


def test_pages_exist_and_show_commands() -> None:
    assert {page.name for page in PAGES} >= {"README.md", "start.md", "add.md", "cluster.md"}
    assert len(all_commands()) > 50
