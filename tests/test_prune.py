"""Pruning the store: alone, beside running processes, and past what it may not touch."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from data.errors import UserError
from runner.store import Artefact, Store
from runner.store import __main__ as command
from runner.store.making import ABOUT, STATE, scratch_of
from runner.store.marks import DAYS, FOLDER, used
from runner.store.prune import Prune
from tests.stores import make_one
from tests.test_store import shown, write

CONTEXT = multiprocessing.get_context("fork")


def made_before(root: Path, seed: int) -> Artefact:
    """Return an artefact of a process that has ended."""
    return make_one(Store(root / "store"), "stage", {"seed": seed}, write)


def test_pruning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used, unused = (made_before(tmp_path, seed) for seed in (0, 1))
    (tmp_path / "results" / "x").mkdir(parents=True)
    row = {"artefacts": [["stage", used.key]]}
    (tmp_path / "results" / "x" / "row.json").write_text(json.dumps(row))
    scratch = scratch_of(unused)
    elsewhere = unused.path.with_name(f".{unused.key}-another-host-at-work")
    scratch.mkdir()
    elsewhere.mkdir()
    root = ("--root", str(tmp_path))

    assert "would delete" in shown(capsys, *root, "prune", "--dry-run")[1] and scratch.exists()
    assert shown(capsys, *root, "prune")[0] == 0
    assert not scratch.exists() and elsewhere.exists() and unused.path.exists()
    (tmp_path / "results" / "x" / "torn.json").write_text("{")
    with pytest.raises(UserError, match=r"torn\.json is damaged"):
        shown(capsys, *root, "prune", "--unused")
    (tmp_path / "results" / "x" / "torn.json").unlink()
    shown(capsys, *root, "prune", "--unused")
    assert unused.path.exists(), "used a moment ago, perhaps by a run without a result yet"
    os.utime(unused.path, (0, 0))
    os.utime(used.path, (0, 0))
    shown(capsys, *root, "prune", "--unused")
    assert not unused.path.exists() and used.path.exists()
    shown(capsys, *root, "prune", "--older-than", "1")
    assert not used.path.exists()


@contextmanager
def at_work(target: Callable[[Path], None], root: Path) -> Iterator[int]:
    """Run a process that creates `root`/ready and goes on until the body ends; yield its id."""
    process = CONTEXT.Process(target=target, args=(root,))
    process.start()
    while not (root / "ready").exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def _use(root: Path) -> None:
    store = Store(root / "store")
    make_one(store, "stage", {"seed": 0}, write)
    (root / "ready").touch()
    time.sleep(60)


def test_what_a_running_process_uses_stays_and_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used, other = made_before(tmp_path, 0), made_before(tmp_path, 1)
    everything = ("--root", str(tmp_path), "prune", "--older-than", "0")
    with at_work(_use, tmp_path) as pid:
        code, text = shown(capsys, *everything)
        assert (code, "1 stay: running processes use them" in text) == (0, True)
        assert used.path.exists() and not other.path.exists()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert list((tmp_path / "store" / FOLDER).glob("*.mark")), "a killed process leaves its marks"
        assert "stay" not in shown(capsys, *everything)[1] and not used.path.exists()
        assert not list((tmp_path / "store" / FOLDER).glob("*.mark"))


def test_another_machines_marks_count_for_a_week(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lock may not reach this one."""
    made = made_before(tmp_path, 0)
    mark = tmp_path / "store" / FOLDER / f"not-{socket.gethostname()}-1234.mark"
    mark.write_text(f"stage/{made.key}\n")
    shown(capsys, "--root", str(tmp_path), "prune", "--older-than", "0")
    assert made.path.exists()
    long_ago = time.time() - 86400 * (DAYS + 1)
    os.utime(mark, (long_ago, long_ago))
    shown(capsys, "--root", str(tmp_path), "prune", "--older-than", "0")
    assert not made.path.exists()


KILLED_AT_WORK = """
import os, socket, sys
from pathlib import Path
socket.gethostname = lambda: sys.argv[1]
from runner.store import Store
from tests.stores import make_one
make_one(Store(Path(sys.argv[2])), "stage", {"seed": 0}, lambda folder: os._exit(9))
"""


def killed_on(host: str, store: Path) -> None:
    """Begin to make an artefact on a machine of this name, and end without a word."""
    done = subprocess.run([sys.executable, "-c", KILLED_AT_WORK, host, str(store)])
    assert done.returncode == 9


def test_a_machine_whose_name_begins_like_this_ones_is_another(tmp_path: Path) -> None:
    """Its locks may not reach here: its scratch stays for a day, and its marks count for a week."""
    store = Store(tmp_path / "store")
    killed_on(f"{socket.gethostname()}-1", store.root)
    (scratch,) = store.root.glob("stage/.*-*/")
    assert not store.leftovers()
    made = make_one(store, "stage", {"seed": 0}, write)
    assert scratch.is_dir(), "the process there may be at work"
    with used(store.root) as busy:
        assert busy == {f"stage/{made.key}"}
    killed_on(socket.gethostname(), root := tmp_path / "own")
    assert len(Store(root).leftovers()) == 1
    with used(root) as busy:
        assert not busy


def test_another_machines_scratch_is_at_work_while_a_file_in_it_grows(tmp_path: Path) -> None:
    """A training longer than a day writes its record there; no name is added to the top folder."""
    store = Store(tmp_path / "store")
    files = store.find("stage", {"seed": 0}).path.with_name(f".{'0' * 16}-elsewhere-1234") / "record.1"
    files.mkdir(parents=True)
    (files / "updates.entries").touch()
    for folder in (files, files.parent):
        os.utime(folder, (0, 0))
    assert not store.leftovers()
    os.utime(files / "updates.entries", (0, 0))
    assert store.leftovers() == [files.parent]


def test_a_symbolic_link_is_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linked, plain = made_before(tmp_path, 0), made_before(tmp_path, 1)
    elsewhere = tmp_path / "elsewhere"
    linked.path.rename(elsewhere)
    linked.path.symlink_to(elsewhere)
    code, text = shown(capsys, "--root", str(tmp_path), "prune", "--older-than", "0")
    assert (code, "1 stay: they are symbolic links" in text) == (0, True)
    assert linked.path.is_symlink() and elsewhere.is_dir() and not plain.path.exists()


def _sweep(root: Path, number: int, seconds: float) -> None:
    """Make and read artefacts as the jobs of a sweep do; any error ends the process with code 1."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        store = Store(root / "store")
        for seed in range(3):
            made = make_one(store, "stage", {"seed": seed}, write)
            for _ in range(20):
                assert (made.path / "a.txt").read_text() == "hello"
    (root / f"done{number}").touch()


def test_a_prune_beside_a_sweep_fails_neither(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes use what two others delete, as often as they can in a second or two."""
    sweeps = [CONTEXT.Process(target=_sweep, args=(tmp_path, number, 1.5)) for number in range(2)]
    for process in sweeps:
        process.start()
    rounds = 0
    while any(process.is_alive() for process in sweeps):
        assert command.main(["--root", str(tmp_path), "prune", "--older-than", "0"]) == 0
        rounds += 1
    for process in sweeps:
        process.join()
    assert [process.exitcode for process in sweeps] == [0, 0]
    assert "deleting" in capsys.readouterr().out and rounds > 5


def _prune_all(root: Path) -> None:
    for _ in range(30):
        assert command.main(["--root", str(root), "prune", "--older-than", "0"]) == 0


def unfinished(store: Store) -> Path:
    """Return the folder of a training that was interrupted, and can go on."""
    made = store.find("stage", {"seed": 0})
    folder = made.path.with_name(f".{made.key}.state")
    (folder / STATE).mkdir(parents=True)
    (folder / STATE / ABOUT).write_text("{}")
    return folder


def test_an_unfinished_training_that_a_process_takes_up_beside_a_prune_stays(tmp_path: Path) -> None:
    """Between the look at it and its deletion, its lock is taken."""
    store = Store(tmp_path)
    folder = unfinished(store)
    prune = Prune(store, dry_run=False, say=lambda line: None)
    with FileLock(folder.with_name(folder.name.replace(".state", ".lock"))):
        assert store.retire(folder) is None and folder.is_dir()
    gone = store.retire(folder)
    assert gone is not None and not store.unfinished() and store.leftovers() == [gone]
    prune.leftovers()
    assert not gone.exists() and not store.leftovers()


def test_a_state_that_is_taken_over_beside_a_prune_does_not_end_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    folder = unfinished(store)
    found = store.unfinished()
    folder.rename(scratch_of(store.find("stage", {"seed": 0})))
    monkeypatch.setattr(Store, "unfinished", lambda _: found)
    assert shown(capsys, "--root", str(tmp_path), "prune", "--older-than", "0")[0] == 0


def test_two_prunes_do_not_fail_each_other(tmp_path: Path) -> None:
    for seed in range(60):
        made_before(tmp_path, seed)
    for number in range(60):
        key = f"{number:016x}"
        scratch_of(Artefact("stage", key, tmp_path / "store" / "stage" / key)).mkdir()
    both = [CONTEXT.Process(target=_prune_all, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert not Store(tmp_path / "store").artefacts() and not Store(tmp_path / "store").leftovers()
