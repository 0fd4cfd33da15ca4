"""The store: content-addressed folders, each made once even if several processes want it.

A kernel file lock keeps other processes from doing the same work. A folder is filled under another name
and renamed at the end, so that it appears whole or not at all, even on file systems without locks.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from runner.signals import ENDING
from runner.store.artefact import Artefact, Identity, fingerprint
from runner.store.disks import (
    days_untouched,
    disk_errors_as_sentences,
    ignoring_unwritable,
    naming_the_owner,
)
from runner.store.making import Maker, Making, is_elsewhere, is_unfinished
from runner.store.marks import MACHINE, Marks

# The stage and the identity of an artefact.
Wanted = tuple[str, Identity]


class Store:
    """The folder of all artefacts, `root/<stage>/<key>`. `say` receives messages for the user.

    `prune` leaves the artefacts alone that this store has looked up (see `Marks`).
    """

    def __init__(self, root: Path, say: Callable[[str], None] = lambda message: None) -> None:
        self.root = root
        self.say = say
        self._sound: set[Path] = set()  # verified once by this process
        self._left_out: set[Path] = set()  # damaged, and told once by this process
        self._marks = Marks(root)

    def find(self, stage: str, identity: Identity) -> Artefact:
        """Return the artefact of this identity, whether or not it exists yet."""
        key = fingerprint(identity)
        return Artefact(stage, key, self.root / stage / key)

    def has(self, stage: str, identity: Identity) -> bool:
        """Return true if the artefact of this identity exists and is whole."""
        return self._is_sound(self.find(stage, identity))

    def stored(
        self, known: Iterable[tuple[str, str]], is_wanted: Callable[[Artefact], bool]
    ) -> Iterator[Artefact]:
        """Yield the artefacts, known by stage and key, that exist, that are wanted and that are whole.

        A damaged one is told, and left out. The unwanted ones are not checked, which reads all their
        bytes.
        """
        for stage, key in known:
            artefact = Artefact(stage, key, self.root / stage / key)
            self._marks.add(artefact.path)
            if not artefact.path.is_dir() or artefact.path in self._left_out:
                continue
            wanted = None
            with suppress(OSError, ValueError, KeyError):  # by damage, if it cannot be told
                wanted = is_wanted(artefact)
            if wanted is not False and not self._is_sound(artefact):
                self.say(f"{artefact.path} is damaged ({artefact.damage(thorough=False)}): left out")
                self._left_out.add(artefact.path)
            elif wanted:
                yield artefact

    def get_many(
        self,
        wanted: Mapping[str, Wanted],
        produce: Callable[[Making], None],
        maker: Callable[[], Maker] = dict,
        together: bool = False,
    ) -> dict[str, Artefact]:
        """Return artefacts that one piece of work makes together, by name.

        `produce` is called once with a scratch folder for each artefact that is absent, and keeps those
        that it completes; a name that it does not keep is missing from the result. Names of equal
        identity share one artefact, and one folder under the first of them. Killed work goes on from its
        state if that has the same `maker`, and the same members if they are made `together`.

        A damaged artefact is reported, set aside as `<key>.damaged` and produced again. Raise UserError
        if the disk is full or the folder cannot be written; no partial artefact remains.
        """
        found = {name: self.find(*each) for name, each in wanted.items()}
        while absent := self._absent(found):
            with disk_errors_as_sentences(self.root), ExitStack() as locks:
                # Every process locks in the order of the paths, so that two never wait for each other.
                for path in sorted(absent):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    locks.enter_context(self._lock(path))
                still = self._absent(found)
                if still <= absent:  # or one was deleted meanwhile, and is not locked
                    each = {name: (found[name], wanted[name][1]) for name in wanted}
                    self._make_missing(each, still, produce, maker, together)
                    break
        return {name: artefact for name, artefact in found.items() if self._is_sound(artefact)}

    def _absent(self, found: Mapping[str, Artefact]) -> set[Path]:
        return {artefact.path for artefact in found.values() if not self._is_sound(artefact)}

    def _make_missing(
        self,
        wanted: Mapping[str, tuple[Artefact, Identity]],
        absent: set[Path],
        produce: Callable[[Making], None],
        maker: Callable[[], Maker],
        together: bool,
    ) -> None:
        """Produce what is absent and locked; another process may have made the rest meanwhile."""
        missing: dict[str, tuple[Artefact, Identity]] = {}
        for name, (artefact, identity) in wanted.items():
            taken = any(artefact == other for other, _ in missing.values())
            if not taken and artefact.path in absent:
                missing[name] = artefact, identity
        if not missing:
            return
        making = Making(missing, maker, together)
        with ENDING.waiting():  # while folders are made and removed
            making.take_over(self.say)
            for artefact, _ in missing.values():
                self._clear(artefact, making.scratch)
            for folder in {artefact.path.parent for artefact, _ in wanted.values()}:
                _clear_finished(folder)
            with making:
                try:
                    with ENDING.at_once():
                        produce(making)
                finally:
                    self._sound.update(artefact.path for artefact in making.kept)

    def _is_sound(self, artefact: Artefact) -> bool:
        """Return true if the artefact exists and is whole. Each process verifies an artefact once."""
        if artefact.path in self._sound and artefact.path.is_dir():
            return True
        self._marks.add(artefact.path)  # before it is looked for: then nothing deletes it in between
        with naming_the_owner(artefact.path):
            if not artefact.path.is_dir() or artefact.damage(thorough=False) is not None:
                return False
        with ignoring_unwritable():
            os.utime(artefact.path)  # `prune` reads the time of the last use
        self._sound.add(artefact.path)
        return True

    def _clear(self, artefact: Artefact, own: Path) -> None:
        """Remove all scratch of this machine but `own`, and set a damaged artefact aside.

        This process holds the lock, so the owners of that scratch are dead. The scratch of other
        machines stays, because their processes may be alive.
        """
        for scratch in artefact.path.parent.glob(f".{artefact.key}-{MACHINE}-*"):
            if scratch != own:
                shutil.rmtree(scratch, ignore_errors=True)
        if artefact.path.is_dir():
            self.say(f"{artefact.path} is damaged ({artefact.damage(thorough=False)}): made again")
            self.set_aside(artefact)

    def set_aside(self, artefact: Artefact) -> None:
        """Rename a damaged artefact to `<key>.damaged`. The next run that needs it makes it again."""
        aside = artefact.path.with_name(artefact.path.name + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(FileNotFoundError):  # another process that found the damage was first
            artefact.path.rename(aside)
        self._sound.discard(artefact.path)

    @contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        lock = lock_of(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            self.say(f"waiting for another process that makes {path.parent.name} {path.name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def artefacts(self) -> list[Artefact]:
        """Return every finished artefact."""
        folders = sorted(path for path in self.root.glob("[!.]*/*/") if "." not in path.name)
        return [Artefact(path.parent.name, path.name, path) for path in folders]

    def leftovers(self) -> list[Path]:
        """Return the scratch folders of killed processes, and what was set aside: damaged artefacts, and
        states that did not fit.

        Scratch of other machines counts once nothing in it was touched for a day, and unfinished work,
        which may go on, does not count.
        """
        scratch = [path for path in self._scratch() if not _can_go_on(path)]
        aside = [*self.root.glob("*/*.damaged/"), *self.root.glob("*/.*.aside/")]
        return sorted(filter(_is_dead, scratch)) + sorted(aside)

    def unfinished(self) -> list[Path]:
        """Return the folders of killed trainings that can go on, when their command is said again."""
        return sorted(path for path in self._scratch() if _can_go_on(path) and _is_dead(path))

    def retire(self, leftover: Path) -> Path | None:
        """Rename a leftover, or unfinished work, so that no process goes on from it or clears it, and
        return its new path. Return None if a process is at work on it, or it is gone."""
        if leftover.suffix in (".damaged", ".aside"):
            return leftover
        with _idle(leftover) as idle, suppress(FileNotFoundError):
            key = _lead_of(leftover).name
            return leftover.rename(leftover.with_name(f".{key}.{uuid4().hex}.aside")) if idle else None
        return None

    def _scratch(self) -> list[Path]:
        return [*self.root.glob("*/.*-*/"), *self.root.glob("*/.*.state/")]


def _clear_finished(stage: Path) -> None:
    """Remove the scratch of processes that were killed when their artefact was in its place already."""
    for scratch in stage.glob(f".*-{MACHINE}-*"):
        if _lead_of(scratch).is_dir():
            with _idle(scratch) as idle:
                if idle:
                    shutil.rmtree(scratch, ignore_errors=True)


def _can_go_on(scratch: Path) -> bool:
    """Return whether a scratch folder is of unfinished work on an artefact that is still missing."""
    return is_unfinished(scratch) and not _lead_of(scratch).is_dir()


def _is_dead(scratch: Path) -> bool:
    """Return whether no process is at work on a scratch folder, as far as this user can see."""
    with _idle(scratch) as idle:
        return idle


@contextmanager
def _idle(scratch: Path) -> Iterator[bool]:
    """Yield whether no process is at work on a scratch folder, as far as this user can see. If so, none
    begins in the body."""
    lock, free = lock_of(_lead_of(scratch)), False
    with suppress(Timeout, FileNotFoundError, PermissionError):  # it may end or be removed meanwhile
        if not is_elsewhere(scratch) or days_untouched(scratch) >= 1:
            lock.acquire(blocking=False)
            free = True
    try:
        yield free and scratch.is_dir()
    finally:
        if free:
            lock.release()


def _lead_of(scratch: Path) -> Path:
    """Return the path of the artefact that a scratch folder lies beside: its name holds the key."""
    return scratch.with_name(scratch.name[1:17])


def lock_of(path: Path) -> FileLock:
    """Return the lock of an artefact, or of another path: the file `.<name>.lock` beside it."""
    return FileLock(path.with_name(f".{path.name}.lock"))
