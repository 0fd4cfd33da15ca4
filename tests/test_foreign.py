"""Components of a user's own that break the rules: whose fault it is, where, and what is wanted."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data.contracts import returned, returned_scores
from data.errors import UserError
from hydra_plugins.unlearn_launchers import SerialLauncher
from metrics.evidence import Evidence
from metrics.metric import Metric, Scores
from runner.compose import composed
from runner.errors import message_of
from runner.foreign import blamed
from runner.state.manifest import manifests
from tests.commands import ROOT, write_files
from tests.conftest import QUICK, results_in
from tests.test_cli import runner, told

# A module `own` of the user's, whose classes share these imports.
HEAD = """
from dataclasses import dataclass
from typing import ClassVar
import torch
from methods.base import Access, Method
from metrics.metric import Metric

"""

METHOD = """
@dataclass(frozen=True)
class Own(Method):
    access: ClassVar[Access] = Access.NOTHING

    def unlearn(self, problem):
        BODY
"""

METRIC = """
@dataclass(frozen=True)
class Own(Metric):
    def about(self):
        return {}

    def __call__(self, evidence):
        BODY
"""

SOURCE = """
import numpy as np
from data.sources import Source
from data.split import Dataset

class Own(Source):
    classes, size, channels = 2, 8, 1

    def load(self, root, download):
        part = self.split({images}, {labels})
        return Dataset(part, part, 2)
"""
PIXELS = "mean: [0.5]\nstd: [0.5]\ncrop: 0\nflip: false\n"

SCENARIO = """
from data.requests import Request, Scenario

@dataclass(frozen=True)
class Own(Scenario):
    def select(self, dataset, streams):
        return Request(torch.tensor({rows}), dataset.test.rows[:3])
"""

Said = Callable[..., str]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Returns what a run says of a class in the user's file own.py, chosen in a group by own.yaml."""

    def run(group: str, code: str, *overrides: str, fields: str = "") -> str:
        (tmp_path / "own.py").write_text(HEAD + code)
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "own.yaml").write_text(f"{fields}_target_: own.Own\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "own", raising=False)
        search = f"hydra.searchpath=[file://{tmp_path}/conf]"
        asked = [*QUICK, search, f"{group}=own", f"paths.root={tmp_path}/out", *overrides]
        return told(asked, monkeypatch, capsys)

    return run


def method(body: str) -> str:
    return METHOD.replace("BODY", body)


def said_of_metric(said: Said, body: str) -> str:
    chosen = "+evaluation.metrics.own._target_=own.Own"
    return said("evaluation", METRIC.replace("BODY", body), "evaluation=standard", chosen)


def line_of(text: str) -> int:
    """Return the line of own.py, holding a method, that begins with the text."""
    lines = (HEAD + METHOD).splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.strip().startswith(text))


def test_a_method_that_returns_nothing(said: Said, tmp_path: Path) -> None:
    text = said("method", method("pass"))
    assert f"unlearn of method Own ({tmp_path}/own.py, line {line_of('def')}) must return" in text
    assert "torch.nn.Module, and returned nothing" in text


def test_a_method_that_returns_the_wrong_thing(said: Said) -> None:
    assert "and returned a value of type int" in said("method", method("return 3"))


def test_a_method_that_returns_another_model(said: Said) -> None:
    text = said("method", method("return torch.nn.Linear(2, 2)"))
    assert "module of method Own" in text and "must return a module that fits" in text


@pytest.mark.parametrize("part", ["forget", "retain", "rest", "recording"])
def test_a_method_that_reads_what_it_did_not_declare(said: Said, tmp_path: Path, part: str) -> None:
    text = said("method", method(f"return problem.{part}"))
    read = "retain" if part == "rest" else part
    place = f"method Own, in Own.unlearn ({tmp_path}/own.py, line {line_of('BODY')})"
    assert f"{place}: it reads problem.{read}" in text


def test_a_method_that_logs_what_it_did_not_declare(said: Said, tmp_path: Path) -> None:
    text = said("method", method("problem.conditions.log({'depth': 3})"))
    place = f"method Own, in Own.unlearn ({tmp_path}/own.py, line {line_of('BODY')})"
    assert f"{place}: it logs depth, and does not declare it: add 'depth' to its `logs`" in text


def test_its_commands_name_the_folder_of_its_configuration(tmp_path: Path) -> None:
    """Without it, and without the folder of its code, the method is not found when a stored result is
    planned, drawn or made again."""
    write_files(ROOT / "docs" / "add.md", tmp_path)
    search, out = f"hydra.searchpath=[file://{tmp_path}/mine/conf]", tmp_path / "out"
    asked = [search, "method=halve_head", f"paths.root={out}"]
    path = f"PYTHONPATH={tmp_path}/mine"
    alone = runner(*asked, PYTHONPATH=f"{tmp_path}/mine")
    assert alone.returncode == 0, alone.stderr
    assert f"next:  {path} python -m runner -m seed=0,1,2 '{search}'" in alone.stdout
    listed = runner(*asked, "seed=2", "plan=true", PYTHONPATH=f"{tmp_path}/mine")
    assert f"make it: {path} python -m runner " in listed.stdout
    swept = runner("-m", *asked, "seed=1", PYTHONPATH=f"{tmp_path}/mine")
    assert swept.returncode == 0, swept.stderr
    (sweep,) = manifests(out)
    assert sweep.command.startswith(f"{path} python -m runner -m")
    commands = [cell.overrides for cell in sweep.cells]
    commands += [tuple(result.overrides) for result in results_in(out)]
    assert len(commands) == 3
    for overrides in commands:
        cfg, _ = composed(list(overrides))
        assert cfg.method._target_ == "halve_head.HalveHead"


@pytest.mark.parametrize(
    ("code", "line", "words"),
    [
        ("import nowhere", 1, "raised ModuleNotFoundError: No module named 'nowhere'"),
        ("names = {}\nnames['k']", 2, "raised KeyError: 'k'"),
        ("raise RuntimeError", 1, "raised RuntimeError"),
    ],
)
def test_a_module_that_fails_as_it_is_imported(
    said: Said, tmp_path: Path, code: str, line: int, words: str
) -> None:
    text = said("method", code)
    at = len(HEAD.splitlines()) + line
    place = f"your code, in <module> ({tmp_path}/own.py, line {at})"
    assert f"cannot import own.Own ({place}, {words}" in text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class Own:\n    pass", "is no method: derive it from methods.base.Method, and put @dataclass"),
        ("class Own(Method):\n    pass", "and put @dataclass(frozen=True) before it"),
        (
            "@dataclass(frozen=True)\nclass Own(Method):\n    pass",
            "own.Own lacks access and unlearn(…), as methods.base.Method explains",
        ),
    ],
)
def test_a_class_that_is_no_whole_method(said: Said, code: str, words: str) -> None:
    assert words in said("method", code)


def test_a_module_with_a_fault_of_syntax(said: Said) -> None:
    text = said("method", "def f(:")
    assert f"invalid syntax (own.py, line {len(HEAD.splitlines()) + 1})" in text


IMAGES, LABELS = "np.zeros((20, 1, 8, 8), np.uint8)", "np.arange(20) % 2"


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (f"{IMAGES}[:, 0]", LABELS, "train images (20, 8, 8) of torch.uint8, where its rows"),
        (f"{IMAGES}.reshape(20, 8, 8, 1)", LABELS, "ask for (20, 1, 8, 8) of torch.uint8"),
        (f"{IMAGES}[:19]", LABELS, "train images (19, 1, 8, 8)"),
        (IMAGES, f"{LABELS} + 1", "train labels from 1 to 2, where its 2 classes ask for 0 to 1"),
        (IMAGES, f"{LABELS} - 1", "train labels from -1 to 0"),
        (IMAGES, f"({LABELS})[:, None]", "train labels (20, 1) of torch.int64, where (20,)"),
        (f"{IMAGES}[:0]", f"({LABELS})[:0]", "no train row"),
        (f"{IMAGES} + 0.5", LABELS, "images that are float64 from 0.5 to 0.5: give bytes from 0"),
        (IMAGES, f"{LABELS} + 0.5", "labels that are float64 from 0.5 to 1.5: give whole numbers"),
    ],
)
def test_a_data_set_that_is_not_what_its_source_declares(
    said: Said, images: str, labels: str, words: str
) -> None:
    code = SOURCE.format(images=images, labels=labels)
    text = said("dataset", code, "scenario.classes=[1]", fields=PIXELS)
    assert "load of source Own (" in text and "own.py, line " in text and words in text


@pytest.mark.parametrize("rows", ["[3, 1]", "[1, 1]", "[1, 99999]", "[-1, 1]", "[[1]]", "[1.0]"])
def test_a_request_for_rows_that_are_not_those_of_the_data_set(said: Said, rows: str) -> None:
    text = said("scenario", SCENARIO.format(rows=rows))
    assert "select of scenario Own (" in text and "data.requests.request_of makes them" in text
    assert "whose rows are not numbers of the data set's rows, ascending, each once" in text


def test_a_value_that_a_method_declares_may_be_a_column(said: Said) -> None:
    code = method("return None").replace("access:", "logs = ('depth',)\n    access:")
    assert "must return" in said("method", code, "table.columns=[depth]"), "it runs"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('x')", "raised KeyError: 'x'"),
        ("assert False", "raised AssertionError"),
        ("return problem.model(3)", "raised TypeError"),
        ("open('nowhere')", "raised FileNotFoundError"),
        ("list(problem.conditions.meter.batches())", "raised TypeError"),
    ],
)
def test_a_method_that_raises(said: Said, tmp_path: Path, body: str, words: str) -> None:
    text = said("method", method(body))
    assert f"method Own, in Own.unlearn ({tmp_path}/own.py, line {line_of('BODY')}), {words}" in text
    assert "HYDRA_FULL_ERROR=1 shows the traceback" in text


@pytest.mark.parametrize(
    "call", ["check_parameters(self, option)", "check(self, facts)", "identity(self)"]
)
def test_a_method_that_raises_before_it_is_used(said: Said, call: str) -> None:
    code = method("return problem.model") + f"\n    def {call}:\n        1 / 0\n"
    assert "raised ZeroDivisionError: division by zero" in said("method", code)


# Groups of components → the shipped option and class that the user's class extends, the call that it
# overrides, and what that call must return.
OTHERS = {
    "scenario": ("whole_class", "data.requests.WholeClass", "select", "a data.requests.Request"),
    "dataset": ("digits", "data.sources.Digits", "load", "a data.split.Dataset"),
    "model": ("small_cnn", "models.small_cnn.SmallCNN", "build", "a torch.nn.Module"),
    "recorder": ("checkpoints", "methods.recording.checkpoints.Checkpoints", "watch", "an iterator"),
}


def other(group: str, body: str) -> tuple[str, str]:
    """Return the code of a component of the user's in a group, and the fields of its option."""
    option, shipped, call, _ = OTHERS[group]
    module = shipped.rpartition(".")[0]
    code = f"import {module}\nclass Own({shipped}):\n    def {call}(self, *given):\n        {body}\n"
    fields = f"defaults: [{option}, _self_]\n"
    if group == "recorder":
        fields = "# @package recorder.own\ndefaults: [_tracking, _self_]\n"
    return code, fields


@pytest.mark.parametrize("group", OTHERS)
def test_other_components_that_return_nothing(said: Said, group: str) -> None:
    _, _, call, wanted = OTHERS[group]
    code, fields = other(group, "pass")
    text = said(group, code, "training=small_cnn", fields=fields)
    assert f"{call} of " in text and "own.py, line" in text
    assert f"must return {wanted}" in text and "and returned nothing" in text


@pytest.mark.parametrize("group", OTHERS)
def test_other_components_that_raise(said: Said, group: str) -> None:
    code, fields = other(group, "raise LookupError('gone')")
    text = said(group, code, "training=small_cnn", fields=fields)
    assert f" Own, in Own.{OTHERS[group][2]} (" in text and "raised LookupError: gone" in text


def test_a_model_that_raises_inside_a_shipped_method(said: Said) -> None:
    code = (
        "import models.small_cnn\n"
        "class Net(torch.nn.Linear):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images.flatten(1).nope)\n"
        "class Own(models.small_cnn.SmallCNN):\n"
        "    def build(self, channels, size, classes):\n"
        "        return Net(channels * size * size, classes)\n"
    )
    text = said("model", code, "training=small_cnn", fields="defaults: [small_cnn, _self_]\n")
    assert "your code, in Net.forward (" in text and "has no attribute 'nope'" in text


def test_a_metric_that_returns_no_numbers(said: Said) -> None:
    text = said_of_metric(said, "return {'mine': torch.ones(1)}")
    assert "__call__ of metric Own (" in text and "returned 'mine': Tensor" in text


def test_in_a_sweep_the_reason_is_the_same_sentence(said: Said) -> None:
    text = said("method", method("raise KeyError('x')"), "hydra.mode=MULTIRUN")
    assert "failed: " in text and "raised KeyError: 'x'; HYDRA_FULL_ERROR=1" in text


def test_the_traceback_is_shown_on_request(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(HEAD + method("raise KeyError('x')"))
    asked = ["method=original", "method._target_=own.Own", f"paths.root={tmp_path}/out"]
    done = runner(*asked, PYTHONPATH=str(tmp_path), HYDRA_FULL_ERROR="1")
    assert done.returncode == 1 and "Traceback" in done.stderr and "KeyError: 'x'" in done.stderr


def test_a_bug_of_this_project_has_no_sentence() -> None:
    with pytest.raises(AttributeError) as met:
        returned(3, "unlearn", None, int, "a number")  # type: ignore[arg-type]
    inner = met.value.__traceback__
    assert inner is not None
    error = met.value.with_traceback(inner.tb_next)  # without this file, which is no file of ours
    assert message_of(error) is None


class Blank(Metric):
    """A metric without parameters, to be named."""

    def __call__(self, evidence: Evidence) -> Scores:
        return {}


def test_scores_are_numbers_or_matrices_by_name() -> None:
    good = {"a": 1, "b": 0.5, "c": [[1, 2], [3, 4]]}
    assert returned_scores(Blank(), good) == good
    for wrong in (None, [1.0], {"a": None}, {"a": True}, {1: 0.5}):
        with pytest.raises(UserError, match=r"__call__ of metric Blank .* must return a dictionary"):
            returned_scores(Blank(), wrong)


def test_a_library_of_an_environment_below_this_one_is_not_the_users_code(tmp_path: Path) -> None:
    """As `uv run --with` and `--system-site-packages` layer environments."""
    library = tmp_path / "site-packages" / "library.py"
    library.parent.mkdir()
    library.write_text("def fail():\n    raise KeyError('x')\n")
    names: dict[str, Callable[[], None]] = {}
    exec(compile(library.read_text(), str(library), "exec"), names)
    with pytest.raises(KeyError) as raised:
        names["fail"]()
    text = blamed(raised.value)
    assert text is not None and str(library) not in text and __file__ in text


def test_a_metric_of_ones_own_is_two_files_anywhere(tmp_path: Path) -> None:
    """The one of docs/add.md."""
    write_files(ROOT / "docs" / "add.md", tmp_path)
    options = [f"hydra.searchpath=[file://{tmp_path}/mine/conf]", "metric=[accuracy,wrong]"]
    columns = "table.columns=[test_accuracy,wrong]"
    done = runner(*options, columns, f"paths.root={tmp_path}/out", PYTHONPATH=f"{tmp_path}/mine")
    assert done.returncode == 0, done.stderr
    assert "wrong: Share of the test rows that are wrong. (share; lower is better)" in done.stdout


def test_evidence_that_a_metric_does_not_declare_is_withheld_with_its_name(said: Said) -> None:
    text = said_of_metric(said, "return {'x': evidence.reference}")
    assert "metric Own" in text and "own.py" in text
    assert "it reads evidence.reference, and does not declare it: add Needs.REFERENCE" in text


def test_a_fault_of_the_programs_own_plugins_is_nobody_elses() -> None:
    with pytest.raises(AssertionError) as caught:
        SerialLauncher().launch([], 0)
    error = caught.value
    assert error.__traceback__ is not None
    assert blamed(error.with_traceback(error.__traceback__.tb_next)) is None
