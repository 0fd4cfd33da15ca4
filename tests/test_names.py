"""Names and paths are refused before anything is computed or written, by every command."""

import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from data.errors import UserError
from runner.compose import composed
from runner.figure.runs import Model
from runner.naming import LONGEST, as_typed, run_name
from runner.pipeline import run
from runner.plan import Plan
from runner.report.__main__ import main as report
from runner.results import Results
from runner.roles import UNLEARNED
from runner.score.__main__ import main as score
from runner.tune.subjects import searches
from tests.conftest import QUICK
from tests.forked import run_module

WRONG = [
    ("name=../../x", "must be a plain folder name"),
    ("name=.hidden", "must be a plain folder name"),
    ("name=a/b", "must be a plain folder name"),
    ("name='a\nb'", "must be a plain folder name"),
    (f"name={'x' * (LONGEST + 1)}", f"has {LONGEST + 1} bytes.*use at most {LONGEST}"),
    (f"name='{'é' * (LONGEST // 2 + 1)}'", f"use at most {LONGEST}"),
    ("paths.root=", "paths.root is empty: name a folder"),
    ("paths.root='  '", "paths.root is empty: name a folder"),
]


def told(command: str, *arguments: str) -> str:
    """Return the error of a command in this process."""
    main: Callable[[list[str]], object] = import_module(f"{command}.__main__").main
    with pytest.raises(UserError) as raised:
        main(list(arguments))
    return str(raised.value)


@pytest.mark.parametrize(("option", "words"), WRONG)
def test_a_run_is_refused(option: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Plan.of(*composed([*QUICK, option]))


@pytest.mark.parametrize("command", ["runner.report", "runner.figure", "runner.score"])
def test_the_other_commands_refuse_the_same(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "plain folder name" in told(command, "name=../../x")
    assert f"use at most {LONGEST}" in told(command, f"name={'x' * (LONGEST + 1)}")
    assert "paths.root is empty" in told(command, "paths.root=")
    assert not list(tmp_path.iterdir())


def test_the_tuner_and_the_store_refuse_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tune = ("tune.validation={classes:[5]}", "tune.trials=1", *QUICK)
    assert "plain folder name" in told("runner.tune", *tune, "name=../../x")
    assert "use at most" in told("runner.tune", *tune, f"name={'x' * LONGEST}"), "_tuning is added"
    assert "paths.root is empty" in told("runner.tune", *tune, "paths.root=")
    assert "tune.folder is empty" in told("runner.tune", *tune, "tune.folder=")
    assert "--root is empty" in told("runner.store", "--root", "")
    assert "there is no prun (did you mean prune?): choose from list" in told("runner.store", "prun")
    assert "--older-than=x: it must be a number" in told("runner.store", "prune", "--older-than", "x")
    assert "plain folder name" in told("runner.store", "export", "name=../../x", "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "scale", "name"),
    [
        ("table", "cpu", "table_cpu"),
        ("table_cpu", "cpu", "table_cpu"),  # as a command has printed it
        ("table_cpu", "quick", "table_cpu_quick"),
        ("table_cpu", "paper", "table_cpu"),
        (None, "cpu", "digits_vit_random_cpu"),
    ],
)
def test_a_scale_ends_a_name_once(asked: str | None, scale: str, name: str) -> None:
    chosen = {"dataset": "digits", "model": "vit", "scenario": "random", "scale": scale}
    assert run_name(asked, chosen) == name


@pytest.mark.parametrize(
    "module",
    [
        "runner.report.__main__",
        "runner.figure.__main__",
        "runner.score.__main__",
        "runner.report.agreement",
        "runner.tracking.__main__",
    ],
)
@pytest.mark.parametrize("name", ["table", "table_cpu"])
def test_a_command_finds_the_results_by_either_name(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = ["push"] if "tracking" in module else []
    options = ["experiment=paper003_table1", "scale=cpu", f"name={name}"]
    main: Callable[[list[str]], object] = import_module(module).main
    with pytest.raises(UserError, match="no results are named table_cpu in"):
        main([*first, *options])


# Commands on results, each with an option that it does not read.
UNREAD = {
    ("runner.report.__main__", "name=table"): "scenario=random",
    ("runner.report.__main__", "experiment=paper003_table1"): "dataset=mnist",
    ("runner.report.__main__", "name=table", "table.seeds=3"): "figure=[scores]",
    ("runner.report.__main__", "papers"): "table.seeds=3",
    ("runner.report.__main__", "check", "results/table"): "seed=0",
    ("runner.report.__main__",): "method=finetune",
    ("runner.report.agreement", "name=table"): "figure=[scores]",
    ("runner.figure.__main__", "name=table"): "threads=1",
    ("runner.score.__main__", "metric=[loss]"): "seed=0",
    ("runner.tracking.__main__", "push"): "model.widths=[4,8]",
}


@pytest.mark.parametrize(("command", "option"), UNREAD.items())
def test_a_command_on_results_refuses_an_option_that_it_does_not_read(
    command: tuple[str, ...], option: str
) -> None:
    """It would look like a filter."""
    module, *words = command
    main: Callable[[list[str]], object] = import_module(module).main
    with pytest.raises(UserError) as raised:
        main([*words, option])
    assert re.fullmatch(
        rf"nothing reads {re.escape(option)} here: name=… chooses results as a whole, and this command "
        r"takes name, experiment, scale, paths\.root.*; leave it out",
        str(raised.value),
    )


@pytest.mark.parametrize("name", [[], ["name=paper003_table1_cpu"]])
def test_a_published_table_is_held_against_the_results_of_a_scale(
    name: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text("line,metric,value\nretrained,test_accuracy,0.5\n")
    preset = ["experiment=paper003_table1", "scale=cpu", f"paths.root={tmp_path}"]
    with pytest.raises(SystemExit):
        report([*preset, "check", str(tmp_path / "table"), *name])
    assert re.search(r"against \S+/results/paper003_table1_cpu\b", capsys.readouterr().out)


def test_the_name_of_a_search_has_its_scale_once_at_its_end(tmp_path: Path) -> None:
    tune = [*QUICK, "tune.validation={classes:[5]}", "tune.trials=1", f"paths.root={tmp_path}"]
    for name in ("table", "table_cpu"):
        (search,) = searches([*tune, "scale=cpu", f"name={name}"])
        assert search.plan.name == "table_tuning_cpu"


def test_a_sweep_with_an_empty_root_makes_no_folder(tmp_path: Path) -> None:
    """Its folder would be /sweeps."""
    before = set(Path("/").iterdir())
    done = run_module("runner", "-m", *QUICK, "paths.root=", "seed=0,1")
    assert done.returncode == 1 and "paths.root is empty" in done.stderr
    assert set(Path("/").iterdir()) == before


def test_the_longest_name_fits_all_its_files(tmp_path: Path) -> None:
    name, root = "x" * LONGEST, f"paths.root={tmp_path}"
    for command, *options in (
        ("runner", *QUICK),
        ("runner.report",),
        ("runner.figure", "figure=[scores]", "figure.scores.x=gradient_examples"),
    ):
        done = run_module(command, *options, f"name={name}", root)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "tables" / f"{name}.md").is_file()
    assert (tmp_path / "figures" / f"{name}_scores.png").is_file()


@pytest.mark.parametrize("name", ["plain_name-1.0", "two words", "a,b", "größe", "it's", "a=b[1]"])
def test_a_name_is_typed_as_hydra_reads_it(name: str) -> None:
    assert composed([as_typed("name", name)])[0].name == name


def test_commands_that_the_program_says_hold_a_name_as_hydra_reads_it(tmp_path: Path) -> None:
    name = "größe, zwei"
    overrides = [*QUICK, as_typed("name", name), f"paths.root={tmp_path}"]
    made = run(Plan.of(*composed(overrides)), overrides)
    assert made is not None
    with pytest.raises(UserError) as refused:
        Model(made, UNLEARNED, tmp_path).matrix("none")
    words = shlex.split(str(refused.value).partition("python -m runner.score ")[2].partition("`")[0])
    cfg, _ = composed([text for text in words if not text.startswith("metric=")])
    assert (cfg.name, cfg.paths.root) == (name, str(tmp_path))
    score([as_typed("name", name), "metric=[loss,speed_up]", f"paths.root={tmp_path}", "--train"])
    (found,) = Results(tmp_path / "results").named(name)
    assert "test_loss" in found.scores["unlearned"]
    asked = [*QUICK, "tune.validation={classes:[5]}", as_typed("name", name), f"paths.root={tmp_path}"]
    (search,) = searches(asked)
    assert search.plan.name == f"{name}_tuning"
