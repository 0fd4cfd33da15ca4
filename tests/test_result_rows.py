"""Rows of results, their matrices and published numbers carry checksums; damage is told, not shown."""

import hashlib
import json
import multiprocessing
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data.errors import UserError
from runner import published, sealed
from runner.figure.leaks import of_rows
from runner.plan import Plan
from runner.results import DamagedResult, Result, Results, read
from runner.roles import UNLEARNED
from runner.tracking.sections import CELL, LEAKING
from tests.conftest import QUICK, plan_of, result_of
from tests.test_report import result as made_up

Quick = Callable[..., Plan]

CONTEXT = multiprocessing.get_context("fork")

NAME = "digits_small_cnn_whole_class"
COMMAND = [*QUICK, "evaluation=quick", "metric=[accuracy,confusion]"]


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The row of a run."""
    root = tmp_path_factory.mktemp("rows")
    result = result_of(plan_of(*COMMAND, f"paths.root={root}"), *COMMAND)
    return root / "results" / NAME / f"{result.key}.json"


def flips(content: bytes, count: int) -> list[bytes]:
    """Return the content with one bit flipped, at so many random places."""
    drawn = random.Random(0)
    found = []
    for _ in range(count):
        flipped = bytearray(content)
        flipped[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        found.append(bytes(flipped))
    return found


def test_no_flipped_bit_changes_a_result_in_silence(row: Path, tmp_path: Path) -> None:
    """It is damage, or it changes nothing, as between two spaces."""
    whole = read(row)
    damaged = 0
    for flipped in flips(row.read_bytes(), 300):
        (tmp_path / "row.json").write_bytes(flipped)
        try:
            assert read(tmp_path / "row.json") == whole
        except DamagedResult as error:
            damaged += 1
            assert "row.json is damaged" in str(error) and "make it again with" in str(error)
    assert damaged > 150


def test_a_row_from_before_digests_is_read_and_a_flipped_bit_ends_in_no_other_error(
    row: Path, tmp_path: Path
) -> None:
    content = json.loads(row.read_text())
    assert content.pop("digest")
    old = tmp_path / "row.json"
    old.write_text(json.dumps(content, indent=1))
    assert read(old) == read(row)
    for flipped in flips(old.read_bytes(), 300):
        old.write_bytes(flipped)
        try:
            read(old)
        except DamagedResult:
            continue


def copied(row: Path, root: Path) -> Results:
    """Return results with one sound row, and one that is damaged."""
    (root / NAME).mkdir(parents=True)
    (root / NAME / row.name).write_bytes(row.read_bytes())
    damaged = row.read_bytes().replace(b'"status": "done"', b'"status": "donE"')
    (root / NAME / f"x{row.name[1:]}").write_bytes(damaged)
    return Results(root)


def test_a_damaged_row_is_named_with_its_command_and_left_out(
    row: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = copied(row, tmp_path).named(NAME)
    assert found.key == row.stem
    told = capsys.readouterr().err
    assert f"left out: {tmp_path / NAME / f'x{row.name[1:]}'} is damaged" in told
    assert "python -m runner data.limit=20" in told and "'metric=[accuracy,confusion]'" in told
    Results(tmp_path).named(NAME)
    assert capsys.readouterr().err == "", "it is told once"


def test_damage_of_a_row_that_several_commands_have_scored_names_each(row: Path, tmp_path: Path) -> None:
    content = json.loads(row.read_text())
    content |= {
        "overrides": ["seed=0"],
        "also": [["seed=0", "metric=[loss]"], ["seed=0", "metric=[ece]"]],
    }
    damaged = tmp_path / "row.json"
    damaged.write_text(json.dumps(content, indent=1))
    with pytest.raises(DamagedResult) as error:
        read(damaged)
    assert str(error.value).endswith(
        "make it again with python -m runner seed=0, then python -m runner seed=0 'metric=[loss]', "
        "then python -m runner seed=0 'metric=[ece]'"
    )


def test_commands_that_end_together_lose_no_score(row: Path, tmp_path: Path) -> None:
    """Two processes write each row at once, each with a score of its own."""
    made, results, keys = read(row), Results(tmp_path), [f"{number:016}" for number in range(30)]
    together = CONTEXT.Barrier(2)

    def write(score: str) -> None:
        for key in keys:
            together.wait(60)
            results.write(replace(made, key=key, scores={"unlearned": {score: 1.0}}), {})

    processes = [CONTEXT.Process(target=write, args=(score,)) for score in ("mine", "yours")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = {each.key: sorted(each.scores["unlearned"]) for each in results.named(NAME)}
    assert found == {key: ["mine", "yours"] for key in keys}


def test_if_all_rows_are_damaged_there_is_no_table(row: Path, tmp_path: Path) -> None:
    results = copied(row, tmp_path)
    (tmp_path / NAME / row.name).write_text("{")
    with pytest.raises(UserError, match=r"all 2 results that are named .* are damaged"):
        results.named(NAME)


@pytest.mark.parametrize("what", ["row", "matrices"])
def test_saying_the_command_again_makes_it_again(quick: Quick, tmp_path: Path, what: str) -> None:
    result = result_of(quick(*COMMAND), *COMMAND)
    results = Results(tmp_path / "results")
    matrices = results.matrices(result)
    folder = tmp_path / "results" / NAME
    (of_matrices,) = folder.glob("matrices/*.json")
    file = folder / f"{result.key}.json" if what == "row" else of_matrices
    file.write_bytes(file.read_bytes().replace(b"0", b"1", 1))
    if what == "matrices":
        with pytest.raises(DamagedResult, match=r"python -m runner data\.limit=20"):
            results.matrices(result)
    again = result_of(quick(*COMMAND), *COMMAND)
    assert again.scores == result.scores and results.matrices(again) == matrices
    assert read(folder / f"{result.key}.json").scores == result.scores


def test_damaged_scores_of_rows_are_left_out_and_those_of_other_methods_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path / "results")
    whole, damaged = made_up("finetune", 0, 0.4), made_up("scrub", 0, 0.6)
    for each in (whole, damaged):
        results.write(each, {CELL: {LEAKING: [[1.0, 2.0, 3.0]]}})
    (file,) = tmp_path.glob(f"results/*/matrices/{damaged.key}-*.json")
    file.write_text(file.read_text().replace("3.0", "4.0"))
    found = of_rows([whole, damaged], tmp_path, LEAKING)
    assert found == {whole.line(UNLEARNED): (whole, [[1.0, 2.0, 3.0]])}
    assert f"left out: {file} is damaged" in capsys.readouterr().err


def test_a_changed_number_of_a_paper_is_refused_until_its_checksum_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in published.FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    file, sums = tmp_path / "paper003_table1.csv", tmp_path / published.SUMS
    whole, before = file.read_bytes(), published.read(file.stem)
    file.write_bytes(flips(whole, 1)[0])
    with pytest.raises(UserError, match=r"sha256sum \*\.csv > SHA256SUMS"):
        published.read(file.stem)
    file.write_bytes(whole + b"mine,mnist,small_cnn,unlearned,test_accuracy,0.5,\n")
    listed = [
        f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n"
        for each in tmp_path.glob("*.csv")
    ]
    sums.write_text("".join(listed))
    assert published.read(file.stem) == {
        **before,
        ("mine", "unlearned", "test_accuracy"): published.Printed(0.5, "mnist", "small_cnn"),
    }


def test_every_published_file_has_its_checksum() -> None:
    for file in published.FOLDER.glob("*.csv"):
        assert published.read(file.stem)


def test_a_kill_before_the_row_is_written_leaves_the_earlier_row_with_its_own_matrices(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path / "results")
    first = made_up("finetune", 0, 0.4)
    results.write(first, {"unlearned": {"confusion": [[1.0]]}})
    row = tmp_path / "results" / first.name / f"{first.key}.json"
    before = row.read_text()
    later = replace(made_up("finetune", 0, 0.6), weights={**first.weights, "unlearned": "other"})
    results.write(later, {"unlearned": {"confusion": [[2.0]]}})
    matrices = next(tmp_path.glob("results/*/matrices/*.json"))
    results.write(first, {"unlearned": {"confusion": [[1.0]]}})
    (kept,) = tmp_path.glob("results/*/matrices/*.json")
    sealed.write(matrices, {"unlearned": {"confusion": [[2.0]]}}, None)
    assert row.read_text() == before, "as after a kill: both files of matrices are there"
    assert results.matrices(read(row)) == {"unlearned": {"confusion": [[1.0]]}}
    results.write(later, {"unlearned": {"confusion": [[2.0]]}})
    assert not kept.exists() and results.matrices(read(row)) == {"unlearned": {"confusion": [[2.0]]}}


def test_scores_of_two_retrained_models_of_one_seed_are_not_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(weights: str, **scores: float) -> Result:
        other = {"1": {"weights": weights, "scores": scores, "costs": {}}}
        return replace(made_up("finetune", 0, 0.4), references=other)

    results = Results(tmp_path / "results")
    first = made("a", test_accuracy=0.5, test_loss=0.9)
    results.write(first, {})
    results.write(made("b", test_accuracy=0.7), {})
    assert results.named("made_up")[0].references == first.references
    assert "keeps its earlier scores: this run has other weights" in capsys.readouterr().err
    later = made("b", test_accuracy=0.7, test_loss=0.8)
    results.write(later, {})
    assert results.named("made_up")[0].references == later.references


def test_a_result_without_matrices_keeps_none_of_another_model(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    first = made_up("finetune", 0, 0.4)
    results.write(first, {"unlearned": {"confusion": [[1.0]]}})
    later = replace(made_up("finetune", 0, 0.6), weights={**first.weights, "unlearned": "other"})
    results.write(later, {})
    (found,) = results.named(first.name)
    assert found.scores == later.scores and results.matrices(found) == {}


def test_matrices_of_an_earlier_version_stay_readable_until_the_result_is_written_anew(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path / "results")
    first, folder = made_up("finetune", 0, 0.4), tmp_path / "results" / "made_up"
    sealed.write(folder / f"{first.key}.json", asdict(first), indent=1)
    sealed.write(folder / "matrices" / f"{first.key}.json", {"unlearned": {"own": [[1.0]]}}, None)
    assert results.matrices(results.named("made_up")[0]) == {"unlearned": {"own": [[1.0]]}}
    results.write(made_up("finetune", 0, 0.4), {"unlearned": {"confusion": [[2.0]]}})
    (found,) = results.named("made_up")
    assert results.matrices(found) == {"unlearned": {"own": [[1.0]], "confusion": [[2.0]]}}
    assert len([*folder.glob("matrices/*.json")]) == 1


def test_matrices_that_are_gone_are_told_with_the_command_that_makes_them(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    made = made_up("finetune", 0, 0.4)
    results.write(made, {"unlearned": {"confusion": [[1.0]]}})
    for file in tmp_path.glob("results/*/matrices/*.json"):
        file.unlink()
    with pytest.raises(DamagedResult, match=r"is damaged \(it is missing\); make it again with python"):
        results.matrices(made)
