"""The state of cells and sweeps, told from the store, the results and the notes alone."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext
from omegaconf import MISSING, DictConfig, OmegaConf

from conf import Until
from data.errors import UserError
from methods.training.divergence import Diverged
from runner import provenance
from runner.arguments import asks_for_a_plan
from runner.compose import BASE, Composer, composed, jobs
from runner.launch.notes import BEGUN, DONE, FAILURE, LABEL, LOG, SHARED, note, noted, start_of
from runner.results import Results
from runner.signals import Ended
from runner.state.cells import Cell, cells_of
from runner.state.check import check
from runner.state.costs import Ledger
from runner.state.locks import machine_of
from runner.state.manifest import Listed, Manifest, manifests
from runner.state.progress import export, progress
from runner.state.standing import standings
from runner.state.states import State
from runner.state.trainings import trainings
from runner.store import Making, Store
from tests.conftest import QUICK, options, plan_of, result_of
from tests.stores import make_one

NAME = "digits_small_cnn_whole_class"


def cell(root: Path, *overrides: str) -> Cell:
    given = (*QUICK, f"paths.root={root}", *overrides)
    return Cell(given, plan_of(*given))


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Return the size and the time of every file."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


# Cells


def test_the_jobs_of_a_glob_are_the_options_that_it_fits() -> None:
    wanted = [name for name in options("method") if name.startswith("negative")]
    found = jobs(["method=glob(negative*)", "seed=3"])
    assert len(wanted) > 1 and found == [[f"method={name}", "seed=3"] for name in wanted]


def test_jobs_that_differ_in_their_seeds_are_composed_once() -> None:
    asked: list[list[str]] = []

    def compose(overrides: list[str]) -> tuple[DictConfig, Mapping[str, str]]:
        asked.append(overrides)
        return composed(overrides)

    jobs = [[f"method={method}", f"seed={seed}"] for method in ("ssd", "finetune") for seed in range(9)]
    cells = cells_of(jobs, compose)
    assert [job[0] for job in asked] == ["method=ssd", "method=finetune"]
    assert [each.plan.key for each in cells if each.plan] == [plan_of(*job).key for job in jobs]
    asked.clear()
    named = cells_of([["name=run_${seed}", f"seed={seed}"] for seed in (3, 4)], compose)
    assert [each.plan and each.plan.name for each in named] == ["run_3", "run_4"], "the seed is read"
    (refused,) = cells_of([["recorder=[]", "method=amnesiac"]])
    assert refused.plan is None and "add recorder=[batch_updates]" in refused.refused


def test_a_cell_of_another_seed_is_as_if_it_were_composed() -> None:
    overrides = [["method=ssd", "seed=0"], ["method=ssd", "seed=3"], ["seed=1", "name=run_${seed}"]]
    with initialize_config_module("conf", **BASE):
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
        config = compose("config", QUICK, return_hydra_config=True)
        composer = Composer(context, config)
        for given in (*overrides, ["seed=2", "name=run_${seed}"]):
            fresh = context.config_loader.load_sweep_config(config, given)
            found = composer(given)
            if given[0] == "method=ssd":
                fresh.hydra.job.override_dirname = MISSING
            assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(fresh)
        context.config_loader.load_sweep_config = None  # type: ignore[assignment,method-assign]
        assert composer(["method=ssd", "seed=9"]).seed == 9, "without composing it"
        with pytest.raises(TypeError):
            composer(["seed=9", "name=run_${seed}"])


# Trainings and costs


def test_the_trainings_of_a_run_are_those_that_it_makes(tmp_path: Path) -> None:
    """Every model that a run stores was listed, and nothing else; afterwards all are stored."""
    plan = plan_of(
        *QUICK,
        f"paths.root={tmp_path}",
        "evaluation.references=2",
        "recorder=[batch_updates]",
        "method=amnesiac",
        "repair=epochs",
    )
    store = Store(tmp_path / "store")
    listed = trainings(plan, store)
    labels = ["original", "record batch_updates", "amnesiac", "amnesiac, repaired", "retrained model"]
    assert [each.label for each in listed] == [*labels, "retrained model"]
    assert not any(each.stored for each in listed) and not store.root.exists()
    result_of(plan)
    made = {a.path for a in store.artefacts() if a.stage not in ("request", "predict")}
    assert {each.artefact.path for each in listed} == made
    assert all(each.stored for each in trainings(plan, store))


def test_shadows_are_found_once_their_request_is_stored(tmp_path: Path) -> None:
    plan = plan_of(*QUICK, f"paths.root={tmp_path}", "evaluation=privacy", "until=shadow", "shadow=0")
    store = Store(tmp_path / "store")
    assert not any(each.stored for each in trainings(plan, store))
    from runner.pipeline import run

    run(plan)
    found = trainings(plan, store)
    assert [each.label for each in found] == ["original of a shadow", "finetune of a shadow"]
    assert all(each.stored for each in found)
    others = trainings(replace(plan, shadow=1), store)
    assert len(others) == 2 and not any(each.stored for each in others)


def test_what_is_left_costs_what_trainings_of_the_same_kind_took(tmp_path: Path) -> None:
    """Three originals took 2, 4 and 30 seconds: the next takes 4, and so does a retrained model."""
    root = tmp_path / "store"
    store, options = Store(root), [*QUICK, f"paths.root={tmp_path}", "method=ssd"]

    def fill(training: Any, seconds: float) -> None:
        def produce(folder: Path) -> None:
            (folder / "cost.json").write_text(json.dumps({"seconds": seconds}))

        stage, identity = training.wanted
        make_one(store, stage, identity, produce)

    for seed, seconds in ((0, 2), (1, 4), (2, 30)):
        fill(trainings(plan_of(*options, f"seed={seed}"), store)[0], seconds)
    new = trainings(plan_of(*options, "seed=3"), store)
    size = store.artefacts()[0].size()
    ledger = Ledger(store.artefacts())
    costs = {each.label: ledger.cost(each) for each in new}
    original = costs["original"]
    assert original is not None and original.seconds == 4 and abs(original.bytes - size) <= 2
    assert costs["retrained model"] == costs["original"] and costs["ssd"] is None
    left = ledger.left([*new, *new])  # twice the same: counted once
    assert left.cost.seconds == 4 * sum(each.label != "ssd" for each in new) and left.unknown == 1
    recorded = [*options, "recorder=[batch_updates]", "seed=0"]
    fill(trainings(plan_of(*recorded[:-1], "seed=1"), store)[1], 0.5)
    (record,) = [e for e in trainings(plan_of(*recorded), store) if e.label == "record batch_updates"]
    found = Ledger(store.artefacts()).cost(record)
    assert found is not None and found.seconds == 4.5, "the stored original is trained once more"


# States


def test_cells_are_hit_missing_diverged_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "code", lambda: {"commit": "0" * 40, "dirty": False})
    done, other = cell(tmp_path, "seed=0"), cell(tmp_path, "seed=1")
    assert done.plan is not None
    result_of(done.plan, *done.overrides)
    diverging = cell(tmp_path, "training.lr=1e6", "training.optimizer=sgd", "training.clip=null")
    assert diverging.plan is not None
    with pytest.raises(Diverged):
        result_of(diverging.plan, *diverging.overrides)
    more = cell(tmp_path, "seed=0", "metric=[accuracy,ece]")
    before = tree(tmp_path)
    found = standings([done, other, diverging, more, Cell((), None, "no such method")], {})
    assert [each.state.value for each in found] == ["hit", "missing", "diverged", "missing", "failed"]
    assert [each.label for each in found[1].missing] == ["original", "finetune", "retrained model"]
    assert "the loss became" in found[2].why
    assert found[3].why == "no score of ece" and not found[3].missing
    assert found[4].why == "no such method"
    assert tree(tmp_path) == before, "a look writes nothing"


def sweep_of(
    root: Path, *cells: Listed, time: str = "12-00", command: str = "python -m runner -m a"
) -> Path:
    folder = root / "sweeps" / "2026-01-01" / time
    Manifest(command, {"commit": "0" * 40}, cells, folder).write()
    for each in cells:
        (folder / str(each.number)).mkdir()
    return folder


def listed(number: int, key: str, until: Until = Until.end) -> Listed:
    return Listed(number, ("method=ssd", f"seed={number}"), NAME, key, until.value)


def gone() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_sweep_says_how_its_cells_stand(tmp_path: Path) -> None:
    plan = plan_of(*QUICK, f"paths.root={tmp_path}")
    result_of(plan)
    cells = [listed(0, plan.key), *(listed(number, f"key{number}") for number in range(1, 6))]
    folder = sweep_of(tmp_path, *cells)
    note(folder / "0", DONE, "1")
    note(folder / "1", BEGUN, f"{socket.gethostname()} {os.getpid()}")
    note(folder / "2", BEGUN, f"{socket.gethostname()} {gone()}")
    note(folder / "3", FAILURE, "the GPU's memory is too small")
    note(folder / "4", BEGUN, "another 1")
    found = progress(tmp_path, NAME)
    states = {seen.cell.number: seen.state for seen in found.cells}
    wanted = [State.hit, State.running, State.failed, State.failed, State.running, State.missing]
    assert states == dict(enumerate(wanted))
    text = found.text()
    assert text.startswith("6 cells of its sweeps: 1 done, 2 failed, 1 missing, 2 running")
    assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in text
    assert "has gone without a word" in text and "the GPU's memory is too small" in text
    assert text.endswith("say again for what is left:\n  python -m runner -m a")
    assert found.left[-1].command == "python -m runner method=ssd seed=5"
    assert progress(tmp_path, "another").text() == ""


def test_a_cell_that_ctrl_c_ended_is_missing_until_it_begins_again(tmp_path: Path) -> None:
    """It has not failed: its training goes on."""
    folder = sweep_of(tmp_path, listed(0, "key0"))
    with pytest.raises(Ended), noted(folder / "0"):
        raise Ended(signal.SIGINT)
    (seen,) = progress(tmp_path, NAME).cells
    assert seen.state is State.missing and seen.why.startswith("ended by SIGINT: finished stages and")
    with noted(folder / "0"):
        raise UserError("no space")
    (seen,) = progress(tmp_path, NAME).cells
    assert seen.state is State.failed and seen.why == "no space"


def test_another_process_with_the_number_of_a_dead_one_does_not_run_its_cell(tmp_path: Path) -> None:
    """A container that starts again has its host name, and the same numbers for its processes. Notes of
    earlier versions lack the start of their process."""
    host, process = socket.gethostname(), os.getpid()
    folder = sweep_of(tmp_path, *(listed(number, f"key{number}") for number in range(3)))
    note(folder / "0", BEGUN, f"{host} {process} {start_of(process)}")
    note(folder / "1", BEGUN, f"{host} {process} 1")
    note(folder / "2", BEGUN, f"{host} {process}")
    found = {seen.cell.number: seen for seen in progress(tmp_path, NAME).cells}
    assert found[0].state is found[2].state is State.running
    assert found[1].state is State.failed and "has gone without a word" in found[1].why


def test_a_sweep_says_which_trainings_are_at_work_that_its_cells_wait_for(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path, listed(0, "key0"), listed(1, "key1"))
    for number, label in enumerate(("original, seed=0", "original, seed=1", "retrained model, seed=0")):
        note(folder / SHARED / str(number), LABEL, label)
    note(folder / SHARED / "0", BEGUN, f"{socket.gethostname()} {os.getpid()}")
    note(folder / SHARED / "0", LOG, "pretrain: 25%")
    note(folder / SHARED / "1", BEGUN, f"{socket.gethostname()} {os.getpid()}")
    note(folder / SHARED / "1", DONE, "1")
    found = progress(tmp_path, NAME)
    assert list(found.shared) == ["original, seed=0"]
    assert f"(log: {folder / SHARED / '0' / LOG})" in found.text()


def test_the_last_sweep_that_began_a_cell_counts(tmp_path: Path) -> None:
    """A failure of noon is forgotten when the cell ends well at one, and the latest command is told."""
    first = sweep_of(tmp_path, listed(0, "key0"), listed(1, "key1"))
    note(first / "0", FAILURE, "the disk is full")
    note(first / "1", FAILURE, "the disk is full")
    second = sweep_of(tmp_path, listed(0, "key0"), time="13-00", command="python -m runner -m b")
    note(second / "0", DONE, "1")
    found = {seen.cell.key: seen for seen in progress(tmp_path, NAME).cells}
    assert found["key0"].state is State.missing and found["key1"].why == "the disk is full"
    assert progress(tmp_path, NAME).commands == ["python -m runner -m b", "python -m runner -m a"]
    (second / "manifest.json").write_text("{")
    assert [sweep.folder for sweep in manifests(tmp_path)] == [first], "a damaged one is left out"


def test_an_artefact_at_work_is_seen_by_its_lock(tmp_path: Path) -> None:
    store, seen = Store(tmp_path), []
    wanted = store.find("pretrain", {"seed": 0})
    assert machine_of(wanted) is None
    make_one(store, "pretrain", {"seed": 0}, lambda folder: seen.append(machine_of(wanted)))
    assert seen == [socket.gethostname()] and machine_of(wanted) is None


def test_artefacts_that_are_made_together_are_seen_on_one_machine(tmp_path: Path) -> None:
    """An original and its record: the scratch folder of both lies beside the first of them."""
    store, seen = Store(tmp_path), []
    wanted = {"model": ("pretrain", {"seed": 0}), "record": ("record", {"seed": 0})}
    both = [store.find(*each) for each in wanted.values()]

    def make(making: Making) -> None:
        seen.extend(map(machine_of, both))
        for name in wanted:
            making.keep(name)

    store.get_many(wanted, make)
    assert seen == [socket.gethostname()] * 2 and [*map(machine_of, both)] == [None, None]


# Published results


def published(root: Path, text: str, ending: str = "_rows.csv") -> Path:
    folder = root / "published"
    folder.mkdir(exist_ok=True)
    (folder / f"{NAME}{ending}").write_text(text)
    return folder / NAME


def test_a_published_row_is_held_against_the_stored_one(tmp_path: Path) -> None:
    plan = plan_of(*QUICK, f"paths.root={tmp_path}")
    result = result_of(plan, "method=finetune")
    accuracy = result.scores["unlearned"]["test_accuracy"]
    head = "variant,role,seed,key,commit,overrides,test_accuracy,seconds\n"
    row = f"finetune,unlearned,0,{plan.key},abc,method=finetune,{accuracy!r},99\n"
    table = published(tmp_path, head + row)
    found = check(table, tmp_path, NAME)
    assert found.holds and found.agree == 1, "seconds are no number to compare"
    published(tmp_path, head + row.replace(repr(accuracy), repr(accuracy + 2**-30)))
    (differing,) = check(table.with_name(f"{NAME}_rows.csv"), tmp_path).differing
    assert (differing.published, differing.now) == (accuracy + 2**-30, accuracy)
    gone = row.replace(plan.key, "0" * 16).replace("method=finetune", "'method=x y' seed=7")
    text = check(published(tmp_path, head + row + gone), tmp_path).text()
    assert "of 2 numbers 1 agree digit for digit, 0 differ, 1 are missing" in text
    assert text.endswith("made by:\n  python -m runner 'method=x y' seed=7")
    several = gone.replace("'method=x y' seed=7", '"seed=7\nseed=7 metric=[loss]"')
    assert check(published(tmp_path, head + several), tmp_path).commands == [
        "python -m runner seed=7",
        "python -m runner seed=7 metric=[loss]",
    ]
    bare = row.replace(plan.key, "0" * 16).replace("method=finetune", "")
    assert check(published(tmp_path, head + bare), tmp_path).commands == ["python -m runner"]


def test_a_table_of_means_is_held_against_the_table_of_today(tmp_path: Path) -> None:
    """Its commands are those of the text beside it."""
    result_of(plan_of(*QUICK, f"paths.root={tmp_path}"))
    head = "line,metric,value,half_width,n\n"
    accuracy = Results(tmp_path / "results").named(NAME)[0].scores["original"]["test_accuracy"]
    lines = f"original,test_accuracy,{accuracy!r},,1\nssd,test_accuracy,0.5,,1\noriginal,seconds,1,,1\n"
    table = published(tmp_path, head + lines, ".csv")
    table.with_name(f"{NAME}.md").write_text("```\npython -m runner \\\n  -m method=ssd\n```\n")
    found = check(table, tmp_path)
    assert found.agree == 2 and len(found.missing) == 2 and not found.differing
    assert found.commands == ["python -m runner -m method=ssd"]
    with pytest.raises(UserError, match=f"has no table: choose from {NAME}"):
        check(table.with_name("other"), tmp_path)
    with pytest.raises(UserError, match=r"has no table: name one, as in results/<name>"):
        check(tmp_path / "empty" / "other", tmp_path)
    with pytest.raises(UserError, match="has no table"):
        check(Path(), tmp_path)


def test_the_manifest_of_a_name_holds_its_cells_and_the_environment(tmp_path: Path) -> None:
    sweep_of(tmp_path, listed(3, "key3"), replace(listed(4, "key4"), name="another"))
    path = export(tmp_path, NAME)
    assert path is not None and export(tmp_path, "absent") is None
    (sweep,) = json.loads(path.read_text())["sweeps"]
    assert sweep["environment"] == {"commit": "0" * 40} and len(sweep["cells"]) == 1


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["plan=true"], True),
        (["-m", "plan=True"], True),
        (["plan=true", "plan=false"], False),
        ([], False),
    ],
)
def test_plan_true_asks_for_a_listing(arguments: list[str], wanted: bool) -> None:
    assert asks_for_a_plan(arguments) is wanted
