"""The doctor: findings before a sweep, each with the cure, and nothing trained to the end."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.errors import UserError
from runner.doctor.__main__ import main
from runner.doctor.outcomes import of_unclear
from runner.plan import Plan
from runner.report import Report
from runner.store import Store
from tests.composing import composed_once
from tests.conftest import QUICK, needs_record, plan_of, result_of, results_in

Said = list[str]
Doctor = Callable[..., Said]


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Returns the lines that the doctor prints for some options."""

    def lines(*options: str) -> Said:
        main([*QUICK, f"paths.root={tmp_path}", *options])
        return capsys.readouterr().out.splitlines()

    return lines


def line(said: Said, words: str) -> str:
    (found,) = [line for line in said if words in line]
    return found


def test_it_tells_what_attacks_can_resolve_and_what_a_sweep_costs(
    doctor: Doctor, tmp_path: Path
) -> None:
    said = doctor("evaluation.references=4", "seed=0,1,2")
    assert line(said, "are to be forgotten").startswith("ok    20 of 200 training rows")
    assert line(said, "rate of 1.0%").startswith("look") and "needs 100 test rows" in line(
        said, "rate of 1.0%"
    )
    # 20 members, 20 test rows of the class: √(41 / 4800)
    assert "standard error of 0.092" in line(said, "the AUC of mia_loss")
    assert line(said, "missing trainings").startswith(
        "ok    missing trainings: original, finetune, 4 × retrained model; about "
    )
    assert line(said, "of these are").startswith(
        "ok    of these are 3 for evaluation.references, about "
    )
    assert "until=pretrain" in line(said, "no original of this seed")
    assert [made.stage for made in Store(tmp_path / "store").artefacts()] == ["request"]


@pytest.mark.parametrize(
    ("capability", "precision", "slow"),
    [("AVX2", "bf16", True), ("AVX2", "fp32", False), ("AVX512", "bf16", False)],
)
def test_a_precision_that_the_processor_emulates_has_a_cure(
    doctor: Doctor, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, capability: str, precision: str, slow: bool,
) -> None:  # fmt: skip
    """The doctor says so before it times a step, and a run before it trains."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    option = f"training.precision={precision}"
    said = doctor(option)
    warned = [number for number, each in enumerate(said) if "emulates" in each]
    timed = next(number for number, each in enumerate(said) if each.startswith("ok    a step takes"))
    assert (len(warned) == 1 and warned[0] < timed) if slow else not warned
    result_of(plan_of(*QUICK, option, f"paths.root={tmp_path}"))
    assert (
        "emulates training.precision=bf16, so that a step takes many times as long: "
        "add training.precision=fp32" in capsys.readouterr().err
    ) is slow


def test_of_a_preset_it_examines_the_first_cell_and_says_so(doctor: Doctor) -> None:
    said = doctor("experiment=paper004_table2", "dataset=digits", "scenario.classes=[3]")
    found = line(said, "cells is examined")
    assert found == "ok    the first of 65 cells is examined: variant=amnesiac seed=0"
    assert line(said, "recorder.batch_updates"), "the record that the variant reads"


@pytest.mark.parametrize(
    ("swept", "number", "first"),
    [
        (["seed=range(1,4)"], 3, "seed=1"),
        (["seed=range(3)"], 3, "seed=0"),
        (["method=choice(ssd,scrub)", "method.alpha=3"], 2, "method=ssd"),
        (["recorder=[batch_updates],[per_sample]"], 2, "recorder=[batch_updates]"),
    ],
    ids=str,
)
def test_of_a_sweep_it_examines_the_first_cell_as_hydra_reads_it(
    doctor: Doctor, swept: list[str], number: int, first: str
) -> None:
    found = line(doctor(*swept), "cells is examined")
    assert found == f"ok    the first of {number} cells is examined: {first}"


def test_it_says_nothing_of_cells_if_there_is_one(doctor: Doctor) -> None:
    assert not [line for line in doctor() if "is examined" in line]


@pytest.mark.parametrize(
    ("options", "missing", "asked"),
    [
        (
            ["pretrained=digits_parity", "evaluation.references=4"],
            "public checkpoint, original, finetune, 4 × retrained model",
            "3 for evaluation.references",
        ),
        (
            ["evaluation=full", "evaluation.references=2", "evaluation.shadows=6"],
            "2 × original, 2 × finetune, 2 × retrained model, "
            "6 × original of a shadow, 6 × finetune of a shadow",
            "3 for evaluation.references and 12 for evaluation.shadows",
        ),
        (
            ["evaluation=privacy", "scenario=random", "evaluation.references=1"],
            "original, finetune, retrained model, 16 × original of a shadow, 16 × finetune of a shadow",
            "32 for evaluation.shadows",
        ),
        (
            ["method=sisa", "method.shards=2"],
            "original, sisa, before the request, sisa, retrained model",
            None,
        ),
        (["method=retrain"], "original, retrain", None),
        (["until=pretrain", "evaluation.references=4"], "original", None),
    ],
    ids=str,
)
def test_it_counts_each_training_that_the_run_lacks_once(
    doctor: Doctor, options: list[str], missing: str, asked: str | None
) -> None:
    said = doctor(*options)
    (found,) = re.findall(r"missing trainings: (.*); about", "\n".join(said))
    assert found == missing
    assert re.findall(r"of these are (.*), about", "\n".join(said)) == ([] if asked is None else [asked])


def test_a_training_as_long_as_an_original_counts_its_seconds(doctor: Doctor) -> None:
    said = "\n".join(doctor("training.epochs=2000", "evaluation.references=4"))
    found = re.findall(r"(?:original|model;|references,) about ([\d,]+) s", said)
    original, missing, asked = (int(each.replace(",", "")) for each in found)
    assert original > 1, "14,000 steps"
    # the original and four retrained models, three of them of other seeds; printed in whole seconds
    assert abs(missing - 5 * original) <= 3 and abs(asked - 3 * original) <= 2


@pytest.mark.parametrize(
    ("options", "without"),
    [(["method=sisa"], " without sisa"), (["method=retrain"], ""), (["until=pretrain"], "")],
    ids=str,
)
def test_it_names_the_trainings_of_which_it_knows_no_time(
    doctor: Doctor, options: list[str], without: str
) -> None:
    assert re.search(rf" s{without}$", line(doctor(*options), "missing trainings"))


def test_it_says_which_trainings_are_refused_and_counts_none_that_is_stored(
    doctor: Doctor, quick: Callable[..., Plan]
) -> None:
    few = ["evaluation.references=3", "evaluation.seconds=1e-9"]
    refused = line(doctor(*few), "of these are")
    assert refused.startswith("look  of these are 2 for evaluation.references, about ")
    assert refused.endswith(": set evaluation.confirm=true to run them, or ask for fewer")
    assert line(doctor(*few, "evaluation.confirm=true"), "of these are").startswith("ok    ")
    result_of(quick(*few, "evaluation.confirm=true"))
    said = doctor(*few)
    assert "ok    every training of the run is stored" in said
    assert not [line for line in said if "of these are" in line]


def test_a_training_without_steps_takes_no_time(doctor: Doctor) -> None:
    said = doctor("training.epochs=0", "evaluation=quick")
    assert "ok    a training has no steps, and takes no time" in said
    assert (
        line(said, "missing trainings")
        == "ok    missing trainings: original, finetune; about 0 s without finetune"
    )


@pytest.mark.parametrize(
    ("method", "subtracts"),
    [
        ("amnesiac", True),
        ("amnesiac_partial", True),
        ("per_sample_amnesiac", False),
        ("rewind", False),
        ("distruction", False),
        ("hessian_free", False),
        ("finetune", False),
    ],
)
def test_hit_batches_are_a_fault_only_for_methods_that_subtract_their_updates(
    doctor: Doctor, method: str, subtracts: bool
) -> None:
    record = needs_record(method)
    said = doctor(f"method={method}", *record)
    found = line(said, "of the training's batches hold a row to forget")
    assert found.startswith("look  " if subtracts else "ok    ")
    cure = "lower training.batch_size, or read a record of single rows (method=per_sample_amnesiac"
    assert (cure in found) == subtracts
    if record:
        assert "expected" in line(said, "recorder.")


def test_it_counts_the_rows_that_each_attack_compares(doctor: Doctor) -> None:
    """Of 150 held-out rows, RMIA ranks the members against every second one."""
    said = doctor("scenario=random", "scenario.count=30", "data.limit=15")
    assert "ok    a false-positive rate of 1.0% can be resolved by the 150 test rows of mia_loss" in said
    lacking = line(said, "rate of 1.0% needs 100 test rows of its kind, and there are 75 for rmia")
    assert lacking.startswith("look  ") and lacking.endswith("is left out; read the AUC")
    # √(181 / 54000) and √(106 / 27000)
    assert "error of 0.058" in line(said, "30 members against 150 test rows give the AUC of mia_loss")
    assert "error of 0.063" in line(said, "30 members against 75 test rows give the AUC of rmia")


@pytest.mark.parametrize(
    ("options", "attacks"),
    [
        ([], {"mia_loss"}),  # no retrained model has seen the class
        (["scenario=random", "metric=[mia_loss,mia_entropy]"], {"mia_loss and mia_entropy"}),
        (["scenario=random", "evaluation=quick"], {"mia_loss"}),
        (["scenario=random", "evaluation=test_only"], set()),
    ],
    ids=str,
)
def test_it_speaks_of_attacks_that_the_run_can_score(
    doctor: Doctor, options: list[str], attacks: set[str]
) -> None:
    said = "\n".join(doctor(*options))
    assert {*re.findall("the AUC of (.*) a standard error", said)} == attacks


def test_it_passes_on_the_warning_of_a_method_that_can_select_nothing(
    doctor: Doctor, tmp_path: Path
) -> None:
    said = doctor("method=ssd", "method.alpha=20")
    assert line(said, "selects no weight").startswith("look")
    assert line(said, "selects no weight").endswith("set method.alpha below that")


def test_a_warning_is_told_once_as_it_stands(doctor: Doctor) -> None:
    found = line(doctor("method=sisa", "method.shards=10", "method.slices=2"), "a slice of SISA")
    assert found.startswith("look  a slice of SISA has only 10 rows, fewer than training.batch_size=")
    assert found.endswith(": set a smaller method.shards or method.slices")
    assert found.count("SISA") == 1
    shadows = ["evaluation=privacy", "evaluation.references=1"]
    told = [line for line in doctor("method=ssd", "method.alpha=40", *shadows) if "selects" in line]
    assert len(told) == 2, "of the request, and once of its halves for 16 shadow models"


def test_it_says_that_seeds_with_requests_of_their_own_share_no_reference(
    doctor: Doctor, tmp_path: Path
) -> None:
    assert "scenario.seed=0" in line(doctor("scenario=random"), "every seed draws other rows")
    pinned = doctor("scenario=random", "scenario.seed=0")
    alone = doctor("scenario=random", "evaluation=quick")
    assert not [line for line in (*pinned, *alone) if "every seed draws other rows" in line]


def test_it_knows_from_stored_runs_what_was_learned_and_which_verdicts_are_open(
    doctor: Doctor, quick: Callable[..., Plan], tmp_path: Path
) -> None:
    result_of(quick("evaluation.references=4"))
    said = doctor()
    # one epoch on 200 rows teaches nothing
    assert "raise training.epochs" in line(said, "the original's accuracy on the train forget rows")
    page = Report(results_in(tmp_path), list(composed_once()[0].table.columns)).terminal()
    (told,) = re.findall(r"^(\d+) verdicts;", page, re.MULTILINE)
    assert line(said, "the stored results have").startswith(f"ok    the stored results have {told} verd")


def test_it_trains_no_original_again_for_a_record_that_is_missing(
    doctor: Doctor, quick: Callable[..., Plan], tmp_path: Path
) -> None:
    result_of(quick())
    said = doctor("method=amnesiac", "recorder=[batch_updates]")
    assert line(said, "the original's accuracy")
    assert line(said, "missing trainings").startswith(
        "ok    missing trainings: record batch_updates, amnesiac; about "
    )
    assert "record" not in {made.stage for made in Store(tmp_path / "store").artefacts()}


@pytest.mark.parametrize(
    ("needed", "option"), [(3, "seed=0,1,2"), (12, "seed=range(12)")], ids=["few", "many"]
)
def test_the_seeds_that_a_verdict_needs_are_told_as_a_shell_reads_them(needed: int, option: str) -> None:
    cure = of_unclear("ssd", "rmia_auc", needed).cure
    assert cure is not None
    (told,) = re.findall(r"\((.*)\) with", cure)
    assert shlex.split(told) == [option] and (told == option or told[0] == "'")


def test_a_request_without_halves_for_shadow_models_is_refused_as_by_the_run(doctor: Doctor) -> None:
    with pytest.raises(UserError, match=r"^a request of one row has no half for shadow models"):
        doctor("scenario=random", "scenario.count=1", "evaluation=privacy")


@pytest.mark.parametrize(
    "wrong", ["scenario.classes=[12]", ["scenario=random", "scenario.count=5000"]], ids=str
)
def test_a_request_that_cannot_be_served_ends_in_its_sentence(
    doctor: Doctor, wrong: str | list[str]
) -> None:
    with pytest.raises(UserError, match=r"^scenario"):
        doctor(*([wrong] if isinstance(wrong, str) else wrong))
