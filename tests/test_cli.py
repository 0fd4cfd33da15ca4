"""The command line as a user meets it: tables, sweeps, and sentences instead of tracebacks."""

import sys
from pathlib import Path

import pytest

from runner.__main__ import cli
from runner.store import Store
from tests.commands import ROOT, write_files
from tests.conftest import QUICK, results_in
from tests.forked import Done, fresh, run_module


def runner(*arguments: str, quick: bool = True, **environment: str) -> Done:
    """Run `python -m runner`; what a test asks for overrides what is quick."""
    multirun = arguments[:1] if arguments[:1] == ("-m",) else ()
    later = arguments[len(multirun) :]
    return run_module("runner", *multirun, *(QUICK if quick else []), *later, **environment)


def test_a_run_prints_one_table_is_quiet_besides_and_imports_only_what_it_uses(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv=['runner', *sys.argv[1:]]\n"
        "from runner.__main__ import cli\n"
        "cli()\n"
        "print([m for m in ('torchvision','wandb','sklearn.datasets') if m in sys.modules])"
    )
    command = ["-c", program, *QUICK, f"paths.root={tmp_path}"]
    cold = fresh(*command)
    assert cold.returncode == 0 and cold.stderr == ""
    *table, modules = cold.stdout.splitlines()
    assert modules == "['sklearn.datasets']", "digits come from scikit-learn"
    lines = [line.split()[0] for line in table if line.strip()]
    assert {"original", "finetune", "retrain"} <= set(lines)
    assert "gap to retrain" in cold.stdout
    warm = fresh(*command)
    assert warm.stdout.splitlines()[-1] == "[]", "everything was stored"


SWEEP = ["-m", "method=finetune,random_labels", "seed=0,1,2"]


def test_a_sweep_pretrains_once_per_seed(tmp_path: Path) -> None:
    done = runner(*SWEEP, f"paths.root={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "random_labels" in done.stdout and "±" in done.stdout and "over 3 seeds" in done.stdout
    stages = [artefact.stage for artefact in Store(tmp_path / "store").artefacts()]
    assert stages.count("pretrain") == 3 and stages.count("unlearn") == 9
    tables = tmp_path / "tables"
    assert {p.suffix for p in tables.glob("digits_small_cnn_whole_class.*")} == {".md", ".csv", ".tex"}


def test_a_failing_job_is_named_and_the_others_finish(tmp_path: Path) -> None:
    done = runner(
        "-m", "method=finetune", "method.lr=0.01,1e6", f"paths.root={tmp_path}", "method.epochs=20"
    )
    assert done.returncode == 1
    assert "the loss became" in done.stderr and "1 of 2 cells of the sweep failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert "finetune (lr=0.01)" in done.stdout and "diverged" in done.stdout


def test_a_sweep_in_which_everything_fails_exits_with_1(tmp_path: Path) -> None:
    done = runner("-m", "method.lr=1e6", "method.epochs=20", f"paths.root={tmp_path}")
    assert done.returncode == 1 and "1 of 1 cells of the sweep failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_over_scenarios_prints_a_table_of_each(tmp_path: Path) -> None:
    done = runner("-m", "scenario=random,relabel", f"paths.root={tmp_path}")
    assert done.returncode == 0
    assert "digits_small_cnn_random" in done.stdout and "digits_small_cnn_relabel" in done.stdout


def test_scores_that_the_command_chooses_and_no_column_shows_lead_its_table(tmp_path: Path) -> None:
    options = ["metric=[accuracy,ece]", "evaluation=quick", f"paths.root={tmp_path}"]
    for done in (runner(*options), runner("-m", *options)):
        head = done.stdout.split("\n\n")[1].split("---")[0].split()
        assert head.index("ece") < head.index("forget"), done.stderr
    given = runner(*options, "table.columns=[test_accuracy]")
    assert given.returncode == 0 and "ece" not in given.stdout.split("\n\n")[1]


def test_the_report_renders_what_is_stored(tmp_path: Path) -> None:
    assert runner(f"paths.root={tmp_path}", "name=mine").returncode == 0
    done = run_module("runner.report", f"paths.root={tmp_path}", "name=mine")
    assert done.returncode == 0 and "finetune" in done.stdout
    assert "| fine-tuning" in (tmp_path / "tables" / "mine.md").read_text()
    done = run_module("runner.report", f"paths.root={tmp_path}", "name=other")
    assert done.returncode == 1 and "choose from mine" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_method_is_two_files(tmp_path: Path) -> None:
    """A method dropped into a folder outside the project: the one of docs/add.md."""
    write_files(ROOT / "docs" / "add.md", tmp_path)
    mine = str(tmp_path / "mine")
    search = f"hydra.searchpath=[file://{mine}/conf]"
    out = f"paths.root={tmp_path / 'out'}"
    done = runner(search, "method=halve_head", "method.factor=0", out, PYTHONPATH=mine)
    assert done.returncode == 0, done.stderr
    assert "halve_head" in done.stdout
    (result,) = results_in(tmp_path / "out")
    assert result.names["method"] == "halve_head"
    assert result.titles["method"] == "halved head"
    assert result.scores["unlearned"] != result.scores["original"]
    wrong = runner(search, "method=halve_head", "method.factor=x", out, PYTHONPATH=mine)
    assert wrong.returncode == 1 and "method.factor" in wrong.stderr


def told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run the command line in this process and return how it ends: exit code and message."""
    monkeypatch.setattr(sys, "argv", ["runner", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli()
    assert ended.value.code not in (0, None)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return f"{ended.value.code}\n{shown.err}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["typo=1"], "there is no typo"),
        (["method=nope"], "there is no method=nope"),
        (["recorder=null"], "leave the option out"),
        (["recorder.per_sample.keep=0.1"], "choose it first: recorder=[per_sample]"),
        (["recorder=[per_sample]", "recorder.per_sample.classes=[12]"], "classes 0 to 9"),
        (["repair.epochs=2"], "choose one first: repair=epochs"),
        (["repair=epochs", "repair.recovered=-1"], "repair.recovered=-1"),
        (["method=[finetune,ssd]"], "a sweep is -m method=a,b"),
        (["scenario.classes=[[3]]"], "one list of single values"),
        (["table.published=nowhere"], "table.published=nowhere is not in"),
        (["table.seeds=0"], "table.seeds=0"),
        (
            [
                "evaluation.reference._target_=methods.amnesiac.Amnesiac",
                "+evaluation.reference={strength:1,target:0}",
            ],
            "add recorder=[batch_updates]",
        ),
        (["dataset.std=[nan]"], "dataset.std=[nan]: it must be"),
        (["model.input_size=5"], "needs 6 pixels"),
        (["model.widths=[4,0]"], "model.widths=[4, 0]: it must be at least 1"),
        (["method.lr=fast"], "method.lr"),
        (["seed=x"], "seed=x: it must be a whole number, not x"),
        (["scenario.classes=[12]"], "classes 0 to 9"),
        (["scenario.classes=[]"], "nothing would be forgotten"),
        (["recorder=[per_sample]", "recorder.per_sample.classes=[]"], "or null for all"),
        (["data.rare=[3:0]"], "at least 1 row of each"),
        (["data.rare=[3]"], "write class:rows"),
        (["data.rare=[3:5,3:9]"], "names class 3 twice"),
        (["until=record"], "add recorder=[…], or set until=pretrain"),
        (
            ["recorder=[per_sample]", "recorder.per_sample.group_by=clas"],
            "set class, or a file of groups",
        ),
        (["model=resnet18", "training.precision=bf16"], "sees a single pixel"),
        (
            ["method=label_flip_partial", "method.keep_first=1e-9", "method.keep_last=1e-9"],
            "moves none of the",
        ),
        (["scenario.classes=[0,1,2,3,4,5,6,7,8,9]"], "nothing would be retained"),
        (["scenario=part_of_class"], "use dataset=cifar20"),
        (["scenario=random", "scenario.count=1438"], "1438 rows"),
        (["dataset=mnist", "data.root=nowhere"], "data.download=true"),
        (["model.weights=nowhere.pt"], "does not exist"),
        (["training.batch_size=5000"], "set training.batch_size=1438 or less"),
        (["training.lr=1e6", "data.limit=20"], "lower the learning rate"),
        (["paths.root=/dev/null/x"], "paths.root"),
        (["device=cuda:99"], "use device="),
    ],
)
def test_mistakes_end_in_a_sentence_that_names_the_cure(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = [] if arguments[0].startswith("paths.root") else [f"paths.root={tmp_path}"]
    assert words in told([*arguments, "tracking=off", *root], monkeypatch, capsys)
    assert not list(tmp_path.glob("store/pretrain/[!.]*"))


def test_row_files_and_damaged_data_are_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    shared = ["tracking=off", f"paths.root={tmp_path}"]
    asked = ["scenario=given_rows", f"scenario.file={rows}", *shared]
    rows.write_text("1\n1\n")
    assert "row 1 more than once" in told(asked, monkeypatch, capsys)
    rows.write_text("5000\n")
    assert "row 5000, which is not among" in told(asked, monkeypatch, capsys)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"x")
    damaged = told(["dataset=mnist", f"data.root={tmp_path}", *shared], monkeypatch, capsys)
    assert "is damaged" in damaged


def test_the_full_error_is_shown_on_request(tmp_path: Path) -> None:
    done = runner("scenario.classes=[12]", f"paths.root={tmp_path}", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv=['runner','--help']\n"
        "from runner.__main__ import cli\n"
        "cli()\n"
        "print([m for m in ('torch','torchvision','wandb','sklearn','pandas') if m in sys.modules])"
    )
    done = fresh("-c", program)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
