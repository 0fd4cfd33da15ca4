"""The edge of every command: help, flags, added options, columns, and what a configuration may name."""

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from data.errors import UserError
from runner.__main__ import cli
from runner.arguments import arranged
from runner.compose import composed, planned, trusting
from runner.errors import message_of, run_command
from runner.shadowed import PACKAGES, shadowed
from tests.conftest import QUICK, options, plan_of
from tests.forked import ROOT, run_module

COMMANDS = (
    "report",
    "figure",
    "score",
    "tune",
    "doctor",
    "store",
    "tracking",
    "dashboard",
    "report.agreement",
)


def printed_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str) -> str:
    monkeypatch.setattr(sys, "argv", ["runner", flag])
    cli()
    return capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_commands_and_choices_and_no_shared_part(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed_help(monkeypatch, capsys, flag)
    for name in COMMANDS[:-1]:
        assert f"python -m runner.{name}" in text
    for group in ("method", "dataset", "experiment"):
        assert all(name in text for name in options(group))
    words = text.replace(",", " ").split()
    assert not [word for word in words if word.startswith("_")] and "scale/scenario" not in text
    assert "--shell-completion" in text and "basic" not in words
    assert {"local,", "serial,", "slurm"} <= set(text.split())
    assert "scale= cpu, gpu, paper, quick" in " ".join(text.split()) and "search=" not in text


def test_help_lists_a_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "my_own.yaml").write_text("")
    monkeypatch.setattr(sys, "argv", ["runner", f"hydra.searchpath=[file://{tmp_path}]", "--help"])
    cli()
    assert "my_own" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name: str) -> None:
    for flag in ("-h", "--help"):
        done = run_module(f"runner.{name}", flag)
        assert done.returncode == 0 and done.stderr == ""
        assert f"python -m runner.{name}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_an_unknown_flag_in_one_sentence(name: str) -> None:
    done = run_module(f"runner.{name}", "--hepl")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: there is no --hepl (did you mean --help?)")


def test_a_command_knows_its_own_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["score", "name=x", "--train"])
    run_command(got.append, "about", ["--train"])
    assert got == [["name=x", "--train"]]
    with pytest.raises(SystemExit, match=r"there is no --train"):
        run_command(got.append, "about")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["method=ssd", "-m", "seed=0,1"], ["-m", "method=ssd", "seed=0,1"]),
        (["seed=0", "--cfg", "job"], ["--cfg", "job", "seed=0"]),
        (["method=a,b", "method.x=1", "-m"], ["-m", "method=a,b", "method.x=choice(1)"]),
        (["method=a,b", "method.x=null", "-m"], ["-m", "method=a,b", "method.x=null"]),
        (["line=sisa"], ["variant=sisa"]),
        ([], []),
    ],
)
def test_flags_may_stand_anywhere(given: list[str], wanted: list[str]) -> None:
    assert arranged(given) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--multirn"], "there is no --multirn (did you mean --multirun?)"),
        (["--cfg"], "expected one argument"),
        (["--cfg", "nope"], "there is no nope: choose from job, hydra, all"),
    ],
)
def test_a_wrong_flag_is_refused(given: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        arranged(given)
    assert words in str(refused.value)


def refused_by(*overrides: str) -> str:
    """Return the sentence with which a run is refused before any work."""
    given = [*QUICK, *overrides]
    with pytest.raises(Exception) as refused:
        planned(*composed(given), given)
    text = message_of(refused.value)
    assert text is not None
    return text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+data.limi=5", "nothing reads +data.limi (did you mean limit?)"),
        ("+foo=1", "nothing reads +foo: a run has budget"),
        ("++seeed=1", "nothing reads +seeed (did you mean seed?)"),
        ("+evaluation.reference_=1", "nothing reads +evaluation.reference_"),
        ("+recorder.per_sample.keep=1", "not chosen: choose it first: recorder=[per_sample]"),
        ("+figure.curves.x=step", "not chosen: choose it first: figure=[scores,curves]"),
        ("+evaluation.metrics.zrf.seed=1", "zrf is not chosen"),
        ("+figure.scores.nope=1", "figure.scores.nope is no parameter of ScoresFigure"),
        ("+method.lrr=1", "method.lrr is no parameter"),
        ("method=[3]", "a group takes names of options: choose from"),
        ("repair=[3]", "choose from epochs, none, recovered"),
        ("training.lr=0", "training.lr=0.0: it must be at least 1e-12"),
        ("method.lr=0", "method.lr=0.0: it must be at least 1e-12"),
        ("training.momentum=1.5", "below 1"),
        ("training.warmup=1e9", "training.warmup"),
        ("training.milestones=[-1]", "training.milestones=[-1]"),
        ("threads=100000", "at most 1,024"),
        ("device=meta", "device=meta is not available here"),
        ("dataset.crop=100000", "set at most 8 pixels"),
        ("seed=99999999999999999999", "seed=99999999999999999999"),
        # columns
        ("table.columns=[]", "table.columns is empty: name some, or leave out -m and plan=true"),
        (
            "table.columns=[acuracy]",
            "acuracy, which no run has (did you mean test_accuracy or train_accuracy or "
            "delta_accuracy?): table.columns=[] lists all",
        ),
        ("table.columns=[zzz]", "zzz, which no run has: table.columns=[] lists all"),
        ("figure.scores.y=[acuracy]", "lists all; figures also have accuracy, epoch, loss, lr"),
        ("table.columns=[test_accuracy,ece]", "names ece"),
        ("table.columns=[lr]", "table.columns names lr, which no run has"),
    ],
)
def test_an_option_without_an_effect_or_a_meaning_is_refused_before_training(
    override: str, words: str
) -> None:
    assert words in refused_by(override)


def test_without_columns_a_run_lists_all_that_it_may_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = [*QUICK, "metric=[ece,accuracy]", "table.columns=[]", f"paths.root={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["runner", *asked])
    cli()
    lines = capsys.readouterr().out.splitlines()
    assert "gradient_examples" in lines and "at_chance" in lines
    assert any(line.startswith("test_accuracy: Share of the test rows that are") for line in lines)
    assert any(line.startswith("test_ece: ") for line in lines) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides",
    [
        ["+foo=0.1", "method.lr=${foo}"],
        ["+hydra.job.env_set.X=1"],
        ["table.columns=[class_3_accuracy,seconds,moved_no_prediction,stopped_at_step]"],
        ["experiment=paper003_table1", "variant=finetune_50", "scale=quick", "metric=[accuracy]"],
        ["figure=[curves]", "figure.curves.x=step", "figure.curves.y=[kl]"],
    ],
)
def test_what_is_read_may_be_added(overrides: list[str]) -> None:
    given = [*QUICK, *overrides]
    planned(*composed(given), given)


def test_a_column_of_a_metric_that_is_not_chosen_names_the_metric() -> None:
    assert "add trade_off to metric=[…]" in refused_by("metric=[accuracy]", "table.columns=[tow]")


def test_a_report_of_columns_that_no_run_has_is_refused(tmp_path: Path) -> None:
    assert run_module("runner", *QUICK, f"paths.root={tmp_path}").returncode == 0
    done = run_module("runner.report", f"paths.root={tmp_path}", "table.columns=[acuracy]")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"has acuracy \(did you mean [^?]*\btest_accuracy\b", done.stderr)
    assert "table.columns=[] lists all" in done.stderr and "peak_bytes" not in done.stderr
    listed = run_module("runner.report", f"paths.root={tmp_path}", "table.columns=[]")
    assert listed.returncode == 0 and "\npeak_bytes\n" in listed.stdout


# What a configuration may name


@pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "builtins.exec", "torch.nn.Linear"])
def test_a_configuration_names_nothing_of_the_machine(target: str) -> None:
    with pytest.raises(UserError, match="may name classes of this program"):
        plan_of(f"method._target_={target}")
    with pytest.raises(UserError, match="may name classes of this program"):
        trusting([f"+hydra.callbacks.mine._target_={target}"])


def test_a_logger_of_hydra_names_nothing_of_the_machine() -> None:
    made = "+hydra.job_logging.handlers.mine={class:subprocess.Popen}"
    with pytest.raises(UserError, match="may name classes of this program"):
        trusting(["hydra/job_logging=default", made])


def test_a_refused_module_is_not_imported() -> None:
    with pytest.raises(UserError, match="may name classes"):
        plan_of("method._target_=antigravity.Method")
    assert "antigravity" not in sys.modules


def test_a_folder_of_ones_own_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seen_by_hydra.py").write_text(
        "from hydra.experimental.callback import Callback\nclass Mine(Callback): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with trusting(["+hydra.callbacks.mine._target_=seen_by_hydra.Mine"]):
        import_module("seen_by_hydra")


# Packages of the same name


def started(folder: Path, *before: Path) -> subprocess.CompletedProcess[str]:
    """Import the runner in a folder, with other folders before this checkout in PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*before, ROOT]))}
    command = [sys.executable, "-c", "import runner"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("place", ["data.py", "models/__init__.py"])
def test_a_package_that_stands_before_ours_is_named(place: str, tmp_path: Path) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    shown, package = (file, "data") if file.name == "data.py" else (file.parent, "models")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for done in (started(tmp_path), started(elsewhere, tmp_path)):
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {shown} stands before the package {package} of this program")


def test_a_plain_folder_of_that_name_stands_before_nothing(tmp_path: Path) -> None:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
    assert started(tmp_path).returncode == 0 and shadowed() is None


# The end of a run


def test_a_run_ends_with_its_row_its_table_and_what_to_try(tmp_path: Path) -> None:
    columns = "table.columns=[seconds]"
    done = run_module("runner", *QUICK, f"paths.root={tmp_path}", "seed=3", "name='a b'", columns)
    row, table, following = done.stdout.strip().splitlines()[-3:]
    (file,) = (tmp_path / "results" / "a b").glob("*.json")
    assert row == f"row:   {file}"
    words = shlex.split(table)
    assert words[0] == "table:" and words[4:] == ["name='a b'", f"paths.root={tmp_path}", columns]
    assert following.startswith("next:  python -m runner -m seed=0,1,2") and "seed=3" not in following
    done = run_module("runner.report", *words[4:])
    assert f"written to {tmp_path / 'tables' / 'a b'}.md, .csv, .tex and _rows.csv" in done.stdout
    assert "seconds" in done.stdout and "accuracy" not in done.stdout


@pytest.mark.parametrize("arguments", ["runner --help", "runner.report papers"])
def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word(arguments: str) -> None:
    """As `head` does; the code is that of a program that SIGPIPE ends."""
    line = f"{shlex.quote(sys.executable)} -m {arguments} | true; exit ${{PIPESTATUS[0]}}"
    made = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (made.returncode, made.stdout, made.stderr) == (141, "", "")
