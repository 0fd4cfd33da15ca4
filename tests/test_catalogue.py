"""The table of methods/README.md is true: what methods see, serve and cost, and which are exact."""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.errors import UserError
from methods.base import Access
from runner.plan import Plan
from tests.conftest import (
    METHODS,
    Stages,
    catalogue,
    checksum_of,
    needs,
    options,
    plan_of,
    stages_of,
    unlearned_of,
)
from tests.recording import tracking_only

QuickMethod = Callable[..., Plan]

SEES = {
    Access.NOTHING: ("nothing", "a record"),
    Access.FORGET: ("forgotten rows",),
    Access.RETAIN: ("retained rows",),
    Access.FORGET | Access.RETAIN: ("both",),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_catalogue_says_what_a_method_sees(quick_method: QuickMethod, method: str) -> None:
    found = quick_method(method).method
    said = catalogue()[method]["sees"]
    assert said.startswith(SEES[found.sees()])
    assert ("a record" in said) == (found.records is not None)


OPERATORS: Mapping[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


def value_of(formula: str, letters: Mapping[str, float]) -> float:
    """Return the value of a formula of numbers, letters, brackets, +, − and ·.

    Raise ValueError if it holds anything else.
    """
    return _value(
        ast.parse(formula.translate(str.maketrans("₀ₙₜ·−", "0nt*-")), mode="eval").body, letters
    )


def _value(node: ast.expr, letters: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=letter):
            return letters[letter]
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](_value(left, letters), _value(right, letters))
    raise ValueError(f"{ast.unparse(node)} is no part of a formula")


def test_a_formula_computes_and_runs_nothing() -> None:
    assert value_of("F + (E₀ − 1)·2.5", {"F": 20, "E0": 3}) == 25
    for text in ("print(F)", "F.real", "F ** 9", "[F]", "'F'"):
        with pytest.raises(ValueError, match="no part of a formula"):
            value_of(text, {"F": 1})


@pytest.mark.parametrize("method", METHODS)
def test_the_catalogue_says_what_a_method_costs(quick_method: QuickMethod, method: str) -> None:
    """Two epochs of training: as many as SISA's slices divide."""
    stages = stages_of(quick_method(method, "training.epochs=2"))
    said = catalogue()[method]["cost"]
    spent, most = spent_by(stages), value_of(said.removeprefix("≤").strip(), letters_of(stages))
    assert spent == pytest.approx(most, abs=1) or (said.startswith("≤") and spent <= most)


def spent_by(stages: Stages) -> float:
    """Return the gradient-examples that the method of a run takes."""
    made = stages.unlearn(stages.pretrain())
    return float(made.read("cost.json")["gradient_examples"])


def test_the_last_retained_rows_meet_a_whole_batch_of_forgotten_ones(quick_method: QuickMethod) -> None:
    """84 rows make 10 batches of 8 and one of 4, beside 11 batches of 8 forgotten rows."""
    request = ["scenario=random", "scenario.count=16", "training.epochs=2"]
    stages = stages_of(quick_method("negative_gradient_plus", *request))
    letters = letters_of(stages)
    said = catalogue()["negative_gradient_plus"]["cost"]
    assert spent_by(stages) == letters["E"] * (84 + 88) <= value_of(said.removeprefix("≤ "), letters)


def test_a_class_that_is_overwritten_and_stays_costs_its_retained_rows(
    quick_method: QuickMethod,
) -> None:
    """The numbers of the YAML, but for 5 retained rows of each class in place of 500."""
    smaller = ["method.noise_batch_size=32", "method.retain_per_class=5", "method.noise_classes=[3]"]
    stages = stages_of(quick_method("unsir", "scenario=random", "scenario.count=16", *smaller))
    said = catalogue()["unsir"]["cost"].removeprefix("≤ ").replace("500", "5")
    assert spent_by(stages) == value_of(said, letters_of(stages))


def letters_of(stages: Stages) -> dict[str, float]:
    """Return the catalogue's letters for a run with one class to forget and two epochs of training."""
    forget, method = len(stages.request.rows), stages.plan.method
    letters = {"F": forget, "R": len(stages.dataset.train) - forget, "E0": 2, "C": 1}
    letters["K"] = stages.dataset.classes
    letters["B"] = getattr(method, "batch_size", 0)
    fields = {"E": "epochs", "En": "noisy_epochs", "Et": "teacher_epochs", "S": "samples", "G": "rounds"}
    own = {letter: getattr(method, name) for letter, name in fields.items() if hasattr(method, name)}
    return letters | own


@pytest.mark.parametrize("method", METHODS)
def test_the_catalogue_says_what_is_exact(
    quick_method: QuickMethod, method: str, tmp_path: Path
) -> None:
    """A result is exact if it is the same bits whatever the forgotten rows showed, in training too."""
    made = []
    for place in ("clean", "poisoned"):
        stages = stages_of(quick_method(method, f"paths.root={tmp_path / place}"))
        if place == "poisoned":
            train = stages.dataset.train
            where = torch.isin(train.rows, stages.request.rows)
            train.images[where] = 255 - train.images[where]
        made.append(checksum_of(stages.unlearn(stages.pretrain())))
    assert catalogue()[method]["exact"] == ("yes" if made[0] == made[1] else "no")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scenario", [name for name in options("scenario") if name != "part_of_class"])
def test_every_scenario_is_served_or_refused_as_the_catalogue_says(
    quick_method: QuickMethod, method: str, scenario: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(map(str, range(10, 30))))
    rest = [f"scenario.file={tmp_path / 'rows.txt'}"] if scenario == "given_rows" else []
    request = plan_of(f"scenario={scenario}", *rest).scenario
    serve_or_refuse(stages_of(replace(quick_method(method), scenario=request)), method, scenario)


def serve_or_refuse(stages: Stages, method: str, scenario: str) -> None:
    """Serve what the catalogue lists, and refuse the rest before any training."""
    requests = catalogue()[method]["requests"]
    if requests == "any" or scenario in requests:
        unlearned_of(stages)
        return
    with pytest.raises(UserError, match="scenario="):
        _ = stages.request
    assert not (stages.plan.root / "store" / "pretrain").exists()


@pytest.fixture(scope="module")
def cifar20_read_once() -> Iterator[None]:
    """Read CIFAR-100 from disk once: each run takes a few of its rows."""
    plan = plan_of("dataset=cifar20")
    whole = plan.source.load(plan.data_root, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(plan.source), "load", lambda source, root, download: whole)
        yield


@needs("cifar-100-python/train")
@pytest.mark.usefixtures("cifar20_read_once")
@pytest.mark.parametrize("method", METHODS)
def test_part_of_a_class_is_served_or_refused(quick_method: QuickMethod, method: str) -> None:
    request = ["dataset=cifar20", "scenario=part_of_class", "data.limit=8", "model.widths=[2,2]"]
    request += tracking_only(method, "vehicles_2")
    serve_or_refuse(stages_of(quick_method(method, *request)), method, "part_of_class")
