"""A store and results that two users share: everything obeys the umask and the group of the folder."""

import multiprocessing
import os
import stat
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from data.disk import save_tensors
from runner.store import Store
from runner.store import __main__ as command
from tests.conftest import QUICK, plan_of, result_of
from tests.stores import make_one
from tests.test_store import never, write

CONTEXT = multiprocessing.get_context("fork")

# Ids that need no account, as the kernel sees users. They share one group.
ALICE, BOB, GROUP = 54321, 54322, 54320

RUN = [*QUICK, "evaluation=quick", "metric=[accuracy,confusion]", "recorder=[checkpoints]"]

METHODS = ("finetune", "original")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become two other users")


def run_as(user: int, umask: int, work: Callable[[], None]) -> None:
    """Do some work in a process of another user, whose own group is the user's number."""

    def become() -> None:
        try:
            os.umask(umask)
            os.setgroups([GROUP])
            os.setgid(user)
            os.setuid(user)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    process = CONTEXT.Process(target=become)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder of the group, whose files belong to the group too (setgid)."""
    for parent in tmp_path.parents:  # pytest's own folders are closed to others
        if parent.stat().st_mode & stat.S_IXOTH:
            break
        parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    tmp_path.chmod(0o755)
    folder = tmp_path / "shared"
    folder.mkdir()
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2770)
    yield folder


def test_every_file_of_a_run_obeys_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o002)
    try:
        result_of(plan_of(*RUN, f"paths.root={tmp_path / 'out'}"), *RUN)
    finally:
        os.umask(old)
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*")}
    assert any(path.suffix == ".safetensors" for path in modes)
    wrong = {path: mode for path, mode in modes.items() if mode != (0o775 if path.is_dir() else 0o664)}
    assert not wrong


def test_a_file_of_tensors_obeys_any_umask(tmp_path: Path) -> None:
    for umask, mode in ((0o077, 0o600), (0o022, 0o644), (0o002, 0o664)):
        old = os.umask(umask)
        try:
            save_tensors({"a": torch.zeros(2)}, tmp_path / f"{umask}.safetensors")
        finally:
            os.umask(old)
        assert (tmp_path / f"{umask}.safetensors").stat().st_mode & 0o777 == mode


@as_root
def test_two_users_share_a_store_and_its_results(shared: Path, tmp_path: Path) -> None:
    """Alice makes a run; Bob says it again, runs another that shares its original, and verifies."""
    # what is imported late must be imported now: other users may not read where Python is installed
    for method in METHODS:
        result_of(plan_of(*RUN, f"paths.root={tmp_path / 'mine'}", f"method={method}"), *RUN)
    assert command.main(["--root", str(tmp_path / "mine"), "verify"]) == 0
    mine, yours = (plan_of(*RUN, f"paths.root={shared}", f"method={name}") for name in METHODS)

    def alice() -> None:
        result_of(mine, *RUN)

    def bob() -> None:
        result_of(mine, *RUN)
        result_of(yours, *RUN)
        assert command.main(["--root", str(shared), "verify"]) == 0

    def later() -> None:
        assert command.main(["--root", str(shared), "prune", "--older-than", "0"]) == 0

    run_as(ALICE, 0o002, alice)
    made = set(shared.glob("store/pretrain/[!.]*"))
    run_as(BOB, 0o002, bob)
    run_as(BOB, 0o002, later)  # the process that made them uses them to its end
    assert len(made) == 1
    assert {path.stat().st_gid for path in shared.rglob("*")} == {GROUP}
    assert not Store(shared / "store").artefacts(), "Bob may delete what Alice made"
    assert len(list(shared.glob("results/*/*.json"))) == 2


@as_root
def test_what_another_user_does_not_share_is_named_and_the_rest_goes_on(
    shared: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Alice's umask is strict. Bob is told so: nothing of hers is taken for damage."""
    store = Store(shared / "store")
    (shared / "store").mkdir(mode=0o2770)
    open_to_all = make_one(store, "stage", {"seed": 1}, write)
    os.chown(open_to_all.path.parent, 0, GROUP)
    open_to_all.path.parent.chmod(0o2775)

    def alice() -> None:
        make_one(Store(shared / "store"), "stage", {"seed": 0}, write)

    def bob() -> None:
        root = ("--root", str(shared))
        for arguments in ((), ("verify",)):
            assert command.main([*root, *arguments]) == 1
        with pytest.raises(Exception, match=r"cannot read .*checksums\.json, which belongs to .*chmod"):
            make_one(Store(shared / "store"), "stage", {"seed": 0}, never)

    run_as(ALICE, 0o077, alice)
    run_as(BOB, 0o002, bob)
    told = capfd.readouterr().out
    assert "1 artefacts" in told and told.count("1 cannot be read: ") == 2
    assert not list(shared.glob("store/*/*.damaged"))
