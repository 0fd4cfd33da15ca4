"""Offline W&B runs: their files, one folder for each run, and a W&B that fails."""

import http.server
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wandb

from runner.pipeline import run
from runner.plan import Plan
from runner.tracking import start
from runner.tracking.offline import OfflineRun, complete, in_use, keep_one, records
from tests.offline_runs import VARIABLES, files, written_in

Quick = Callable[..., Plan]
ON = ["tracking.enabled=true"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setattr(start, "refused", set())


@pytest.fixture
def fresh_client() -> Iterator[None]:
    """Let the client read its environment, which it reads once in a process."""
    wandb.teardown()
    yield
    wandb.teardown()


def piece(kind: int, data: bytes) -> bytes:
    return struct.pack("<IHB", 0, len(data), kind) + data


def test_records_come_whole_from_pieces_and_blocks() -> None:
    """A block of 32768 bytes: header 7, a record of 32739, and 15 bytes for a first piece of 8."""
    long = b"a" * (32768 - 7 - 7 - 15)
    log = b"header." + piece(1, long) + piece(2, b"firstpce") + piece(3, b"middle") + piece(4, b"last")
    log += piece(1, b"whole")
    assert list(records(log)) == [long, b"firstpcemiddlelast", b"whole"]
    assert list(records(log[:-1])) == [long, b"firstpcemiddlelast"], "the last is only partly written"
    padded = b"header." + piece(1, b"b" * (32768 - 7 - 7 - 3)) + bytes(3) + piece(1, b"next")
    assert list(records(padded))[1] == b"next", "fewer than 7 bytes at the end of a block are padding"


def test_a_run_that_is_said_again_keeps_one_folder(quick: Quick) -> None:
    plan = quick(*ON)
    run(plan)
    (first,) = written_in(plan.root)
    run(plan)
    (second,) = written_in(plan.root)
    assert first.run.run_id == second.run.run_id
    assert first.curve("pretrain/loss") == second.curve("pretrain/loss") != []
    assert (plan.root / "wandb" / "latest-run").exists()


def test_a_run_with_less_evaluation_keeps_one_folder_with_all_scores_and_curves(quick: Quick) -> None:
    run(quick(*ON))
    (full,) = written_in(quick().root)
    _, models = full.table("tables/models")
    run(quick(*ON, "evaluation=quick"))
    (kept,) = written_in(quick().root)
    assert kept.run.run_id == full.run.run_id and kept.path != full.path
    assert full.summary.keys() <= kept.summary.keys() and "reference/final/test_loss" in kept.summary
    assert kept.curve("retrain/loss") == full.curve("retrain/loss") != []
    assert [line[0] for line in kept.table("tables/models")[1]] == [line[0] for line in models]


def test_a_run_that_is_said_again_with_other_metrics_keeps_one_folder_with_the_scores_of_both(
    quick: Quick,
) -> None:
    run(quick(*ON, "metric=[accuracy,confusion]"))
    run(quick(*ON, "metric=[loss]"))
    (kept,) = written_in(quick().root)
    assert {"final/test_accuracy", "final/test_loss", "reference/final/test_loss"} <= kept.summary.keys()
    assert any(name.startswith("confusion/unlearned") for name in kept.summary)


def test_a_damaged_file_of_matrices_ends_no_run_that_is_said_again_without_them(quick: Quick) -> None:
    run(quick(*ON, "evaluation=quick", "metric=[accuracy,confusion]"))
    plan = quick(*ON, "evaluation=quick", "metric=[accuracy]")
    (file,) = plan.root.glob("results/*/matrices/*.json")
    file.write_text(file.read_text().replace("confusion", "confusioN"))
    again = run(plan)
    assert again is not None and again.status == "done"


def test_a_run_that_is_said_again_with_more_metrics_keeps_one_folder(quick: Quick) -> None:
    run(quick(*ON, "metric=[accuracy]"))
    run(quick(*ON, "metric=[accuracy,loss]"))
    (kept,) = written_in(quick().root)
    assert "final/test_loss" in kept.summary


def test_a_folder_that_was_uploaded_stays_in_place_of_one_that_holds_the_same(quick: Quick) -> None:
    run(quick(*ON))
    (uploaded,) = files(quick().root)
    uploaded.with_name(uploaded.name + ".synced").touch()
    run(quick(*ON))
    assert files(quick().root) == [uploaded]


def test_a_killed_run_leaves_no_folder_behind_the_one_that_ends(quick: Quick) -> None:
    plan = quick(*ON)
    run(plan)
    (whole,) = files(plan.root)
    killed = whole.parent.with_name(whole.parent.name.replace("offline-run-2", "offline-run-1"))
    killed.mkdir()
    (killed / whole.name).write_bytes(whole.read_bytes()[:-200])
    assert not OfflineRun(killed).ended
    with in_use(killed) as free:  # another process would be writing
        assert free
        run(plan)
        assert killed.exists()
    run(plan)
    assert not killed.exists() and len(files(plan.root)) == 1


def test_a_folder_with_a_point_of_its_own_stays(quick: Quick) -> None:
    run(quick(*ON, "evaluation.every=1"))
    (looks,) = files(quick().root)
    run(quick(*ON, "evaluation.every=2"))
    assert looks in files(quick().root) and len(files(quick().root)) == 2
    newest = files(quick().root)[1].parent
    (run_id,) = {each.run.run_id for each in written_in(quick().root)}
    keep_one(newest, run_id)
    assert len(files(quick().root)) == 2


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server of W&B that lets nobody in."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b'{"errors": [{"message": "permission denied"}], "data": null}'
        self.send_response(403)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.usefixtures("fresh_client")
def test_an_account_that_is_refused_ends_no_run(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, refusing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", refusing)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    for seed in (0, 1):
        assert run(quick(*ON, "tracking.mode=online", f"seed={seed}")) is not None
    told = [line for line in capfd.readouterr().err.splitlines() if "W&B did not" in line]
    assert len(told) == 1, "the server is asked once in a process"
    assert "permission denied" in told[0] and "`wandb login`" in told[0]
    assert "`wandb sync` uploads it" in told[0]
    written = written_in(quick().root)
    assert [each.exit_code for each in written] == [0, 0]
    assert all("final/test_accuracy" in each.summary for each in written)


@pytest.mark.usefixtures("fresh_client")
def test_no_key_ends_no_run(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(quick().root))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert run(quick(*ON, "tracking.mode=online")) is not None
    assert "W&B did not take the run (No API key configured" in capfd.readouterr().err
    assert len(written_in(quick().root)) == 1


@pytest.mark.parametrize("free", [0, 200])
def test_a_full_disk_is_told_in_one_sentence_and_ends_no_run(
    quick: Quick,
    monkeypatch: pytest.MonkeyPatch,
    small_disk: Callable[[int], Path],
    capfd: pytest.CaptureFixture[str],
    free: int,
) -> None:
    """Full from the start, and full on the way: of 1 MiB, `free` KiB."""
    disk = small_disk(1)
    (disk / "filled").write_bytes(bytes(1024 * 1024 - 1024 * free))
    monkeypatch.setenv("WANDB_DIR", str(disk))
    monkeypatch.setattr("runner.tracking.offline.PATIENCE", 0.2)
    found = run(quick(*ON, "training.epochs=400", "method.epochs=1"))
    assert found is not None and found.scores["unlearned"]
    told = [line for line in capfd.readouterr().err.splitlines() if "W&B" in line or "Error" in line]
    assert len(told) == 1 and "free some space" in told[0]
    assert "python -m runner.tracking push name=digits_small_cnn_whole_class" in told[0]


def test_a_file_that_does_not_end_is_not_complete(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.tracking.offline.PATIENCE", 0.1)
    run(quick(*ON))
    (whole,) = files(quick().root)
    assert complete(whole.parent)
    os.truncate(whole, whole.stat().st_size - 100)
    assert not complete(whole.parent)
    shutil.rmtree(whole.parent)
    assert not complete(whole.parent)
