"""Mistakes in options and files end in one sentence that names the cure."""

import os
from pathlib import Path

import pytest

from conf import FOLDER
from runner.arguments import renamed
from runner.compose import composed
from runner.errors import HYDRA, WISH, message_of
from runner.wording import PACKAGES
from tests.conftest import QUICK
from tests.test_cli import told


def said(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Return the sentence about a run that fails before any work, and check that it is one line."""
    (line,) = told(arguments, monkeypatch, capsys).splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        # the options of groups
        ("recorder=[nope]", "there is no recorder=nope: choose from batch_updates, bayesian"),
        ("recorder=[per_sample,nope]", "there is no recorder=nope: choose from batch_updates"),
        ("recorder=nope", "there is no recorder=nope: choose from batch_updates"),
        ("recorder=none", "or recorder=[] for none"),
        ("tracking=none", "or tracking=off for none"),
        ("figure=[nope]", "there is no figure=nope: choose from cam"),
        ("dataset=MNIST", "there is no dataset=MNIST (did you mean mnist?): choose from cifar10"),
        ("method=finetun", "(did you mean finetune?)"),
        ("method=finetune/x", "there is no method=finetune/x (did you mean finetune?): choose from"),
        ("scenario=class", "(did you mean whole_class?)"),
        ("experiment=nope", "there is no experiment=nope: choose from cifar10_five_methods"),
        ("hydra/launcher=slrm", "there is no hydra/launcher=slrm (did you mean slurm?)"),
        ("method=null", "leave the option out, or switch things off with repair=none"),
        ("method=[finetune,ssd]", "take the name of one option each, no list, null or ~; a sweep is -m"),
        ("method=finetune,ssd", "write -m method=finetune,ssd for a sweep"),
        ("~method", "take the name of one option each"),
        # names of options
        ("methd=finetune", "there is no methd (did you mean method?)"),
        ("scal=quick", "(did you mean scale?)"),
        ("lr=0.1", "did you mean training.lr or method.lr?"),
        ("method.learning_rate=1", "fine-tuning has batch_size, optimizer"),
        ("method.epoch=1", "there is no method.epoch (did you mean epochs?)"),
        ("recorder.per_sample.keep=1", "choose it first: recorder=[per_sample]"),
        ("repair.epochs=1", "choose one first: repair=epochs"),
        ("hydra.launcher.workers=2", "choose one first: hydra/launcher=local, slurm or ray"),
        ("data=mnist", "data holds several options: set data.root or data.download"),
        ("seed.x=1", "seed.x=1: it must be a single number, not {}"),
        ("evaluation.metrics=[a]", "evaluation.metrics holds several options"),
        ("scenario={a:1}", "there is no scenario.a: whole class has classes"),
        ("+seed=1", "seed exists: write seed=… without +"),
        ("~seed", "seed cannot be removed"),
        # the types of values
        ("seed=x", "seed=x: it must be a whole number, not x"),
        ("seed=1e3", "seed=1e3: it must be a whole number, not 1000.0"),
        ("seed=[1,2]", "it must be a single number, not [1, 2]; a sweep over several"),
        ("seed=0,1", "write -m seed=0,1 for a sweep; an option that is a list is seed=[0,1]"),
        ("++seed=x", "seed=x: it must be a whole number"),
        ("method.lr=fast", "method.lr: it must be a number, not fast"),
        ("method.lr=[1]", "method.lr: it must be a single number, not [1]"),
        ("method.lr=null", "method.lr: it needs a value, which null is not"),
        ("method.epochs=1.5", "method.epochs: it must be a whole number, not 1.5"),
        ("method.optimizer=adamm", "it must be one of sgd, adam, adamw, not adamm"),
        ("data.download=maybe", "it must be true or false, not maybe"),
        ("until=forever", "it must be one of pretrain, record, shadow, end, not forever"),
        ("name=[a]", "it must be a single word, not ['a']"),
        ("model.widths=4", "model.widths=[4]: give 2 numbers"),
        ("model.widths=[a,b]", "model.widths[0]: it must be a whole number, not a"),
        ("table.columns=test_accuracy", "it must be a list, as in [a,b] or [a]"),
        ("shadow=3", "shadow=3 needs shadow models: set evaluation=privacy"),
        ("hydra.searchpath=[file:///nowhere]", "hydra.searchpath names /nowhere, which is no folder"),
        ("evaluation.metrics=3", "evaluation.metrics holds several options: set them one by one"),
        ("tune.space=[a]", "tune.space holds several options: set them one by one"),
        ("table.columns=null", "it needs a value, which null is not"),
        # how they are written
        ("method", "cannot read 'method': write option=value"),
        ("method.lr:0.1", "cannot read 'method.lr:0.1': write option=value"),
        ("method==finetune", "cannot read 'method==finetune': close brackets and quotes"),
        ("name=(a)", "cannot read 'name=(a)': close brackets and quotes"),
        ("name=a=b", "cannot read the arguments at '='"),
        ("name='a", "cannot read 'name='a': close brackets and quotes"),
        ("table.columns=[a", "cannot read the arguments at '[a': close brackets"),
        ("name=${x}", "name: there is no option x, which ${x} names"),
        ("name=${oc.env:NOPE}", "set the environment variable NOPE"),
        ("hydra.searchpath=/tmp", "hydra.searchpath=[file:///folder]"),
    ],
)
def test_wrong_options(
    argument: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["tracking=off", f"paths.root={tmp_path}", argument]
    assert words in said(arguments, monkeypatch, capsys)
    assert not list(tmp_path.iterdir())


def test_an_option_of_a_method_that_has_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(["method=original", "method.lr=1", "tracking=off"], monkeypatch, capsys)
    assert "there is no method.lr: original has no options" in text


def test_a_sweep_over_an_interval_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["-m", "method.lr=interval(0,1)", "tracking=off", f"paths.root={tmp_path}"]
    assert "a sweep has no interval(…): write option=a,b" in said(asked, monkeypatch, capsys)


def test_a_group_lists_the_options_of_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recorder").mkdir()
    (tmp_path / "recorder" / "mine.yaml").write_text("")
    asked = [f"hydra.searchpath=[file://{tmp_path}]", "recorder=[min]"]
    text = said(asked, monkeypatch, capsys)
    assert "(did you mean mine?)" in text and "leave_one_out, mine, paper004" in text


@pytest.mark.parametrize(
    ("group", "line"),
    [
        (
            "metric",
            "metric/mine.yaml does not say where its options stand: begin it with the line "
            "# @package evaluation.metrics.mine",
        ),
        ("recorder", "begin it with the line # @package recorder.<name>"),
        ("figure", "begin it with the line # @package figure.<name>"),
        (
            "search",
            "search/mine.yaml does not say where its options stand: begin it with the line "
            "# @package tune.space",
        ),
    ],
)
def test_a_file_of_ones_own_without_its_place_is_told_its_first_line(
    group: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The files of the program begin with such a line themselves."""
    place = PACKAGES[group]
    for file in (FOLDER / group).glob("[!_]*.yaml"):
        named = f"# @package {place.format(file.stem)}\n"
        assert file.read_text().startswith((named, f"# @package {group}\n"))
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text("_target_: mine.Mine\n")
    asked = [f"hydra.searchpath=[file://{tmp_path}]", f"paths.root={tmp_path}/out"]
    if group == "search":
        (tmp_path / "method").mkdir()
        (tmp_path / "method" / "mine.yaml").write_text("_target_: methods.original.Original\n")
    choice = "method=mine" if group == "search" else f"{group}=[mine]"
    assert line in said([*asked, choice], monkeypatch, capsys)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [1\nb: 2\n", "method/mine.yaml, line 2 is not valid YAML ("),
        ("a: 1\n\tb: 1\n", "method/mine.yaml, line 2 is not valid YAML (found"),
        ("a: 1\na: 2\n", "method/mine.yaml, line 2 is not valid YAML (found duplicate key a)"),
        ("defaults: _descent\n", "method/mine.yaml: write its defaults as a list"),
        ("defaults: [_descen]\n", "method/mine.yaml: there is no method=_descen"),
        ("defaults: [override /methd: ssd]\n", "method/mine.yaml overrides methd"),
        ("# @package _global_\nsede: 3\n", "method/mine.yaml, sede: there is no such option"),
        ("# @package _global_\nseed: x\n", "method/mine.yaml, seed: it must be a whole number, not x"),
        ("# @package _global_\ntable: {columns: {a: 1}}\n", "method/mine.yaml sets options where"),
        ("# @package _global_\ntable: {columns: a}\n", "method/mine.yaml, table.columns: it must"),
        ("lr: ${nope}\n_target_: methods.finetune.Finetune\n", "method.lr: there is no option nope"),
        ("a: \udcff\n", "a file that must be text is not in UTF-8"),
    ],
)
def test_wrong_files_of_a_folder_of_ones_own(
    content: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_bytes(content.encode(errors="surrogateescape"))
    asked = [f"hydra.searchpath=[file://{tmp_path}]", "method=mine", "tracking=off"]
    assert words in said([*asked, f"paths.root={tmp_path}/out"], monkeypatch, capsys)


def test_a_method_is_chosen_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    mine = tmp_path / "experiment" / "mine.yaml"
    asked = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]
    mine.write_text("# @package _global_\ndefaults: [/method: ssd]\n")
    assert "write `override /method: …`" in said(asked, monkeypatch, capsys)
    mine.write_text("# @package _global_\ndefaults: [override /methd: ssd]\n")
    assert "experiment/mine.yaml overrides methd" in said(asked, monkeypatch, capsys)


def raised(text: str, kind: str = "UncompletedJobError") -> Exception:
    """Return an error of submitit's with this text, without submitit."""
    return type(kind, (RuntimeError,), {})(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('Could not detect "srun", are you indeed on a slurm cluster?', "there is no Slurm here"),
        ("[Errno 2] No such file or directory: 'sbatch'", "there is no Slurm here"),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller\nmore",
            "Slurm refused the jobs (Batch job submission failed: Unable to contact slurm controller)",
        ),
        ("sbatch: fatal: no partition", "Slurm refused the jobs (no partition)"),
        ('Could not make sense of sbatch output ""', "sbatch printed no job number"),
        ("Job not requeued because: timed-out too many times.", "the same command goes on from"),
        ("Job not requeued because: timed-out and not checkpointable.", "hydra.launcher.timeout_min"),
    ],
)
def test_slurms_failures(text: str, words: str) -> None:
    message = message_of(raised(text))
    assert message is not None and words in message and "\n" not in message


def test_a_launcher_without_slurm_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = ["-m", "hydra/launcher=slurm", "seed=0,1", "tracking=off", f"paths.root={tmp_path}"]
    assert "there is no Slurm here" in told(asked, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("line=sisa", "variant=sisa"),
        ("line=sisa,finetune_50", "variant=sisa,finetune_50"),
        ("+line=sisa", "+variant=sisa"),
        ("~line", "~variant"),
    ],
)
def test_a_former_name_is_replaced_and_the_new_one_named(
    former: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert renamed(["-m", former, "seed=0"]) == ["-m", now, "seed=0"]
    assert f"line= is now variant=: write {now};" in capsys.readouterr().err


def test_a_path_from_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ["paths.root=~/runs", "scenario.file=~/rows.txt", "~variant", "name=a~b"]
    full = [f"paths.root={tmp_path}/runs", f"scenario.file={tmp_path}/rows.txt", "~variant", "name=a~b"]
    assert renamed(given) == full


@pytest.mark.parametrize(
    "kept", ["variant=sisa", "lines=3", "name=line=3", "figure.curves.line=3", "-m"]
)
def test_other_arguments_are_left_alone(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert renamed([kept]) == [kept] and capsys.readouterr().err == ""


def test_line_works_wherever_a_configuration_is_composed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert composed(["line=finetune_50"])[1]["variant"] == "finetune_50"
    assert "write variant=finetune_50" in capsys.readouterr().err
    for start in ([], ["-m"]):
        asked = [*start, "line=nope", f"paths.root={tmp_path}"]
        text = told(asked, monkeypatch, capsys)
        assert "there is no variant=nope" in text and "write variant=nope" in text


def test_a_failed_run_says_one_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra adds no line about the overrides, and its switch for tracebacks is set back."""
    asked = [*QUICK, f"paths.root={tmp_path}", "training.batch_size=5000"]
    assert "batch_size" in said(asked, monkeypatch, capsys)
    assert not {HYDRA, WISH} & set(os.environ)
