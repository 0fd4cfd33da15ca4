"""The store under races, kills, damage and full disks."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from data.errors import UserError
from runner.store import Artefact, Making, Store, Wanted, fingerprint
from runner.store import __main__ as command
from runner.store.making import ABOUT, STATE, scratch_of
from tests.stores import make_one

SOME = {"version": 1, "seed": 0}


def write(folder: Path, text: str = "hello") -> None:
    (folder / "a.txt").write_text(text)


def never(folder: Path) -> None:
    raise AssertionError("made twice")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    made = make_one(Store(tmp_path), "stage", SOME, write)
    again = make_one(Store(tmp_path), "stage", SOME, never)
    assert made.path == again.path and (again.path / "a.txt").read_text() == "hello"
    assert again.identity == SOME


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_a_fingerprint_depends_on_content_not_on_order(identity: dict[str, object]) -> None:
    turned = dict(reversed(identity.items()))
    assert fingerprint(identity) == fingerprint(turned)
    assert fingerprint(json.loads(json.dumps(identity))) == fingerprint(identity)
    assert fingerprint({**identity, "another": 1}) != fingerprint(identity)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise ZeroDivisionError

    store = Store(tmp_path)
    with pytest.raises(ZeroDivisionError):
        make_one(store, "stage", SOME, fail)
    assert not store.artefacts() and not store.leftovers()
    assert make_one(store, "stage", SOME, write).damage() is None


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing", "no checksums", "no object"])
def test_a_damaged_artefact_is_named_set_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    made = make_one(Store(tmp_path), "stage", SOME, write)
    file = made.path / "a.txt"
    {
        "altered": lambda: file.write_text("hellO"),
        "truncated": lambda: file.write_text("hell"),
        "missing": file.unlink,
        "no checksums": (made.path / "checksums.json").unlink,
        "no object": lambda: (made.path / "checksums.json").write_text("[]"),
    }[damage]()
    said: list[str] = []
    again = make_one(Store(tmp_path, said.append), "stage", SOME, write)
    assert (again.path / "a.txt").read_text() == "hello" and again.damage() is None
    assert len(said) == 1 and "damaged" in said[0] and made.key in said[0]
    assert made.path.with_name(made.key + ".damaged").is_dir()


def test_two_processes_that_find_the_same_damage_set_it_aside(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    made = make_one(first, "stage", SOME, write)
    first.set_aside(made)
    second.set_aside(made)
    assert make_one(second, "stage", SOME, write).damage() is None


def _count_and_write(folder: Path) -> None:
    with (folder.parents[2] / "made").open("a") as file:
        file.write("x")
    time.sleep(0.5)
    write(folder)


def _ask(root: Path) -> None:
    artefact = make_one(Store(root), "stage", SOME, _count_and_write)
    assert (artefact.path / "a.txt").read_text() == "hello"


def test_eight_processes_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    askers = [context.Process(target=_ask, args=(tmp_path,)) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert [asker.exitcode for asker in askers] == [0] * 8
    assert (tmp_path / "made").read_text() == "x"


def _hang(root: Path) -> None:
    def produce(folder: Path) -> None:
        write(folder, "torn")
        (root / "started").touch()
        time.sleep(60)

    make_one(Store(root), "stage", SOME, produce)


def test_after_a_kill_a_waiting_process_takes_over_and_the_scratch_goes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    holder = context.Process(target=_hang, args=(tmp_path,))
    holder.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    waiter = context.Process(target=_ask, args=(tmp_path,))
    waiter.start()
    time.sleep(0.3)
    assert waiter.is_alive() and not Store(tmp_path).leftovers(), "scratch at work is no leftover"
    assert holder.pid is not None and holder.is_alive()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert holder.exitcode == -signal.SIGKILL
    waiter.join(30)
    assert waiter.exitcode == 0
    assert [a.damage() for a in Store(tmp_path).artefacts()] == [None]
    assert not Store(tmp_path).leftovers()


def test_what_is_deleted_while_waiting_for_another_is_locked_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its scratch, which another process is filling, would be taken for that of a killed one."""
    store = Store(tmp_path)
    wanted: dict[str, Wanted] = {"one": ("stage", {"part": 1}), "two": ("stage", {"part": 2})}
    first = make_one(store, *wanted["one"], write)
    lock = Store._lock

    def waiting(self: Store, path: Path) -> AbstractContextManager[None]:
        shutil.rmtree(first.path, ignore_errors=True)
        return lock(self, path)

    def make(making: Making) -> None:
        for name, folder in making.folders.items():
            with pytest.raises(Timeout):
                path = store.find(*wanted[name]).path
                FileLock(path.with_name(f".{path.name}.lock")).acquire(timeout=0)
            write(folder)
            making.keep(name)

    monkeypatch.setattr(Store, "_lock", waiting)
    assert store.get_many(wanted, make).keys() == wanted.keys()


def test_where_locks_do_not_reach_the_first_rename_wins(tmp_path: Path) -> None:
    """Another node finished the same artefact while this one was making it."""
    store = Store(tmp_path)

    def beaten(folder: Path) -> None:
        write(folder, "mine")
        other = store.find("stage", SOME).path
        other.mkdir()
        write(other, "theirs")
        (other / "checksums.json").write_text("{}")

    assert (make_one(store, "stage", SOME, beaten).path / "a.txt").read_text() == "theirs"
    assert not store.leftovers()


def test_where_locks_do_not_reach_both_states_of_interrupted_work_are_kept(tmp_path: Path) -> None:
    """Another node was interrupted too, while this one was at work, and its state is there first."""
    store = Store(tmp_path)

    def interrupted(making: Making) -> None:
        other = store.find("stage", SOME).path.with_name(f".{fingerprint(SOME)}.state") / STATE
        for state in (other, making.state):
            state.mkdir(parents=True, exist_ok=True)
            (state / ABOUT).write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_many({"one": ("stage", SOME)}, interrupted)
    assert len(store.unfinished()) == 2


LIMIT = 200_000


def _with_a_full_disk(root: Path, how: str) -> None:
    """Writes more than the kernel lets this process write into one file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))

    def produce(folder: Path) -> None:
        if how == "safetensors":
            save_file({"weights": torch.zeros(LIMIT)}, folder / "model.safetensors")
        else:
            (folder / "big").write_bytes(bytes(2 * LIMIT))

    try:
        make_one(Store(root), "stage", SOME, produce)
    except UserError as error:
        (root / "said").write_text(str(error))


@pytest.mark.parametrize("how", ["file", "safetensors"])
def test_a_full_disk_is_told_and_leaves_nothing_torn(tmp_path: Path, how: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=_with_a_full_disk, args=(tmp_path, how))
    process.start()
    process.join(60)
    said = (tmp_path / "said").read_text()
    assert "is full: free some space" in said and "paths.root" in said
    assert not Store(tmp_path).artefacts() and not Store(tmp_path).leftovers()
    assert not list(tmp_path.glob("stage/.*-*"))


def test_a_disk_that_is_really_full(small_disk: Callable[[int], Path]) -> None:
    store = Store(small_disk(1))
    with pytest.raises(UserError, match="is full: free some space"):
        make_one(store, "stage", SOME, lambda folder: write(folder, "x" * 2_000_000) or None)
    assert not store.artefacts() and not store.leftovers()
    assert make_one(store, "stage", SOME, write).damage() is None


def test_an_artefact_under_another_ones_key_is_not_served(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = make_one(store, "stage", {"seed": 1}, lambda folder: write(folder, "other"))
    shutil.copytree(other.path, store.find("stage", {"seed": 0}).path)
    found = make_one(Store(tmp_path), "stage", {"seed": 0}, write)
    assert (found.path / "a.txt").read_text() != "other" and found.damage() is None


# The command line


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = command.main(list(arguments))
    return code, capsys.readouterr().out


def test_listing_and_verifying(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    identity = {"model": {"class": "models.small_cnn.SmallCNN"}, "seed": 7}
    made = make_one(store, "pretrain", identity, write)
    code, text = shown(capsys, "--root", str(tmp_path))
    assert code == 0 and made.key in text and "SmallCNN, seed 7" in text and "1 artefacts" in text
    assert shown(capsys, "--root", str(tmp_path), "verify")[0] == 0
    (made.path / "a.txt").write_text("other")
    code, text = shown(capsys, "--root", str(tmp_path), "verify")
    assert code == 1 and "a.txt differs" in text


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("option", ["--root={}", "paths.root={}"])
def test_the_root_stands_anywhere_and_is_written_as_in_a_run(
    option: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_one(Store(tmp_path / "store"), "stage", SOME, write)
    root = option.format(tmp_path)
    given = [root, "list"] if where == "before" else ["list", root]
    assert made.key in shown(capsys, *given)[1]


def test_another_machines_scratch_is_left_alone(tmp_path: Path) -> None:
    """Where locks do not reach, a scratch of another host may be at work under our lock's nose."""
    store = Store(tmp_path)
    other = store.find("stage", SOME).path.with_name(f".{fingerprint(SOME)}-elsewhere-1234")
    other.mkdir(parents=True)
    make_one(store, "stage", SOME, write)
    assert other.is_dir() and not store.leftovers()
    os.utime(other, (0, 0))
    assert store.leftovers() == [other]


def test_a_folder_without_an_identity_is_listed_as_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_one(Store(tmp_path / "store"), "stage", SOME, write)
    (made.path / "identity.json").unlink()
    assert "damaged" in shown(capsys, "--root", str(tmp_path))[1]
    assert shown(capsys, "--root", str(tmp_path), "verify")[0] == 1


def test_artefacts_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        made = make_one(Store(tmp_path), "stage", SOME, write)
    finally:
        os.umask(old)
    assert made.path.stat().st_mode & 0o777 == 0o750


def test_the_age_is_that_of_the_last_use(tmp_path: Path) -> None:
    made = make_one(Store(tmp_path), "stage", SOME, write)
    os.utime(made.path, (0, 0))
    make_one(Store(tmp_path), "stage", SOME, never)
    assert time.time() - made.path.stat().st_mtime < 60


def test_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner.store", "--root", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0 and "0 artefacts" in done.stdout
    assert Artefact("a", "b", tmp_path).damage() is not None


def test_scratch_of_a_finished_artefact_goes_when_another_is_made(tmp_path: Path) -> None:
    """A process was killed between the two."""
    store = Store(tmp_path)
    made = make_one(store, "stage", SOME, write)
    scratch = scratch_of(made)
    scratch.mkdir()
    make_one(store, "stage", {**SOME, "seed": 1}, write)
    assert not scratch.exists() and made.path.is_dir()
