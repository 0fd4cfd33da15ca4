"""One training over several processes that torchrun starts, with gloo on the CPU."""

import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from data.errors import UserError
from methods.recording.batch_updates import UpdateRecord
from methods.recording.per_sample import SampleRecord
from methods.training.processes import refuse_coupled_rows, refuse_other_hooks
from methods.weights.per_sample_gradients import Capture
from models.torchvision_models import AlexNet
from runner.pipeline import run
from runner.processes import TEAM, require_means, require_rows
from runner.stages.models import MODEL
from runner.store import Artefact, Store
from tests.conftest import QUICK, close, plan_of, results_in, stages_of
from tests.forked import ROOT, start_module
from tests.recording import model_of
from tests.shared_trainings import SHARED
from tests.test_resume import bits

# The longest that any of these commands takes on a busy machine, in seconds.
LIMIT = 600


def started(folder: Path, count: int, module: str, *arguments: str) -> list[ForkServerProcess]:
    """Start the processes of `python -m module arguments` as torchrun does.

    They are forked from one that has imported torch, and without torchrun none ends another.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_RUN_ID": "test"}
    about |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start_module(
            module,
            *arguments,
            out=folder / f"out{rank}",
            err=folder / f"err{rank}",
            environment={**about, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]


def codes(processes: list[ForkServerProcess]) -> list[int | None]:
    """Wait for the ends of processes, and return their exit codes; None for one that does not end."""
    for each in processes:
        each.join(LIMIT)
    return [each.exitcode for each in processes]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the runs of `tests.shared_trainings`, over three processes."""
    folder = tmp_path_factory.mktemp("shared")
    ended = codes(started(folder, 3, "tests.shared_trainings", str(folder)))
    assert ended == [0, 0, 0], (folder / "err0").read_text()
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of the same run in one process."""
    root = tmp_path_factory.mktemp("alone")
    torch.set_num_threads(1)
    run(plan_of(*SHARED, f"paths.root={root}"))
    return root


def made_in(root: Path, stage: str) -> dict[str, Artefact]:
    """Return the artefacts of a stage by key."""
    return {made.key: made for made in Store(root / "store").artefacts() if made.stage == stage}


def pairs(shared: Path, alone: Path, stage: str) -> list[tuple[Artefact, Artefact]]:
    """Return the artefacts of a stage that three processes made, each beside that of one."""
    many, one = made_in(shared / "whole", stage), made_in(alone, stage)
    assert many.keys() == one.keys() and many
    return [(many[key], one[key]) for key in many]


# Results


@pytest.mark.parametrize("stage", ["pretrain", "unlearn"])
def test_models_and_predictions_are_those_of_one_process(shared: Path, alone: Path, stage: str) -> None:
    """The original by pretraining, and the fine-tuned and the retrained model by `fit`."""
    stages = stages_of(plan_of(*SHARED, f"paths.root={alone}"))
    test = stages.dataset.test
    images = test.pixels.normalise(test.images)
    for many, one in pairs(shared, alone, stage):
        assert all(
            close(value, load_file(one.path / MODEL)[name], rel=1e-6)
            for name, value in load_file(many.path / MODEL).items()
        )
        found, wanted = (model_of(stages, made)(images) for made in (many, one))
        assert torch.allclose(found, wanted, rtol=0, atol=1e-5)
        costs = [made.read("cost.json")["gradient_examples"] for made in (many, one)]
        assert costs[0] == costs[1]


def test_curves_are_those_of_one_process(shared: Path, alone: Path) -> None:
    ((many, one),) = pairs(shared, alone, "pretrain")
    for found, wanted in zip(many.read("curves.json"), one.read("curves.json"), strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)


def test_records_hold_the_rows_steps_and_shares_of_one_process(shared: Path, alone: Path) -> None:
    recorded: set[str] = set()
    for many, one in pairs(shared, alone, "record"):
        found, wanted = (load_file(made.path / "rows.safetensors") for made in (many, one))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        recorded |= found.keys()
    assert {"shares", "steps", "rows"} <= recorded


def test_the_share_of_any_rows_is_that_of_one_process(shared: Path, alone: Path) -> None:
    """Sums of the per-sample record, and the sum of all updates, which is the way that θ went."""
    stages = stages_of(plan_of(*SHARED, f"paths.root={alone}"))
    model = model_of(stages, stages.pretrain())
    rows = stages.request.rows
    for many, one in pairs(shared, alone, "record"):
        if (one.path / "updates.entries").exists():
            found, wanted = (UpdateRecord.open(made.path) for made in (many, one))
            assert close(found.total(found.hit(rows)), wanted.total(wanted.hit(rows)))
        else:
            sums, of_one = (SampleRecord.open(made.path).share(model, rows) for made in (many, one))
            assert all(close(sums[name], of_one[name]) for name in of_one)


def test_a_training_that_a_signal_ended_goes_on_to_the_same_bits(shared: Path) -> None:
    whole, resumed = bits(shared / "whole"), bits(shared / "resumed")
    assert {name.split("/")[0] for name in resumed} == {"request", "pretrain", "record"}
    assert resumed == {name: whole[name] for name in resumed}


def test_a_record_that_is_made_later_ends_in_the_same_bits(shared: Path) -> None:
    whole, later = bits(shared / "whole"), bits(shared / "later")
    assert later == {name: whole[name] for name in later}


def test_rows_and_models_say_how_many_processes_made_them(shared: Path, alone: Path) -> None:
    for root, count in ((shared / "whole", 3), (alone, 1)):
        (result,) = results_in(root)
        assert {each["processes"] for each in result.provenance.values()} == {count}


def test_a_record_by_another_number_of_processes_is_refused_before_training(shared: Path) -> None:
    other = plan_of(*SHARED, "recorder.per_sample.dtype=bf16", f"paths.root={shared / 'later'}")
    with pytest.raises(UserError, match=r"trained by 3 processes.* --nproc-per-node"):
        stages_of(other).pretrain()


# Refusals


def test_a_sweep_is_refused(tmp_path: Path) -> None:
    sweep = ["-m", "seed=0,1", "hydra/launcher=slurm", f"paths.root={tmp_path / 'root'}"]
    assert codes(started(tmp_path, 2, "runner", *sweep)) == [1, 0]
    told = (tmp_path / "err0").read_text()
    assert told.startswith("error: torchrun shares the trainings of one run")
    assert "start the sweep with python -m runner" in told and len(told.splitlines()) == 1
    assert not (tmp_path / "root").exists()


def test_more_processes_than_rows_of_a_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TEAM, "processes", SimpleNamespace(count=4))
    require_rows(4)
    with pytest.raises(UserError, match="4 processes, and a batch has 3 rows: start at most 3"):
        require_rows(3)


def test_a_compiled_model_and_a_device_without_a_backend_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    require_means(cpu, compiled=False)
    with pytest.raises(UserError, match=r"set training\.compile=false"):
        require_means(cpu, compiled=True)
    with pytest.raises(UserError, match="device=mps between processes: set device=cpu"):
        require_means(torch.device("mps"), compiled=False)
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UserError, match=r"4 processes .* 2 GPUs.*--nproc-per-node=2"):
        require_means(torch.device("cuda"), compiled=False)


def test_dropout_is_refused_where_it_is_active() -> None:
    model, image = AlexNet(None, None, 63).build(1, 63, 10), torch.zeros(1, 1, 63, 63)
    refuse_coupled_rows(model.eval(), image, bf16=False)
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=r"as dropout does.* start without torchrun"):
        refuse_coupled_rows(model.train(), image, bf16=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_norm_is_refused_where_it_couples_rows() -> None:
    model, image = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), torch.zeros(1, 1, 2, 2)
    refuse_coupled_rows(model.eval(), image, bf16=False)
    with pytest.raises(UserError, match=r"1 is a BatchNorm.* use GroupNorm"):
        refuse_coupled_rows(model.train(), image, bf16=False)


def test_a_hook_that_would_see_a_part_of_the_rows_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with Capture(model):
        refuse_other_hooks(model, captures=1)
        model[0].register_forward_hook(lambda *_: None)
        with pytest.raises(UserError, match="a hook watches 0"):
            refuse_other_hooks(model, captures=1)


# Ends


def test_torchrun_starts_and_ends_a_run(tmp_path: Path) -> None:
    """The command of the documentation."""
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program += ["-m", "runner", *QUICK, "until=pretrain", f"paths.root={tmp_path}"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    (made,) = made_in(tmp_path, "pretrain").values()
    assert made.read("provenance.json")["processes"] == 2


def test_the_others_end_without_a_word_when_the_first_has_nothing_to_train(tmp_path: Path) -> None:
    assert codes(started(tmp_path, 2, "runner", "--help")) == [0, 0]
    assert (tmp_path / "out0").read_text() and not (tmp_path / "out1").read_text()
    assert not (tmp_path / "err1").read_text()


def in_training(folder: Path) -> list[ForkServerProcess]:
    """Start a long training over two processes, and return them when its steps have begun."""
    options = [*QUICK, "training.epochs=100000", f"paths.root={folder / 'root'}"]
    processes = started(folder, 2, "runner", *options)
    deadline = time.monotonic() + LIMIT
    while not list((folder / "root" / "store" / "pretrain").glob(".*/state")):
        assert time.monotonic() < deadline and all(each.is_alive() for each in processes)
        time.sleep(0.05)
    time.sleep(0.5)
    return processes


def send(number: signal.Signals, process: ForkServerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_ends_with_a_sentence_when_the_other_is_killed(tmp_path: Path, killed: int) -> None:
    processes = in_training(tmp_path)
    send(signal.SIGKILL, processes[killed])
    assert codes(processes)[1 - killed] == 1
    told = (tmp_path / f"err{1 - killed}").read_text()
    assert "error: another process of the training has ended" in told and "Traceback" not in told


def test_a_signal_to_all_processes_keeps_the_state(tmp_path: Path) -> None:
    """As torchrun sends it, and Ctrl-C."""
    processes = in_training(tmp_path)
    for each in processes[::-1]:
        send(signal.SIGTERM, each)
    assert codes(processes) == [128 + signal.SIGTERM, 0]
    assert "the state of a training are kept" in (tmp_path / "err0").read_text()
    assert list((tmp_path / "root" / "store" / "pretrain").glob(".*/state/state.json"))
