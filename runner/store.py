"""Content-addressed folders: what a stage makes is named by what it was made from.

`python -m runner.store` lists them, `verify` checks them, `prune` deletes what is no longer wanted.

A kernel file lock spares other processes the same work; the rename at the end is what makes a folder
true: it appears whole or not at all, also where locks do not reach.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from data.disk import ENTRIES, says_full
from data.errors import UserError

Identity = Mapping[str, Any]

HOST = socket.gethostname()

SIZES = "sizes.json"
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def fingerprint(identity: Any) -> str:
    """16 hexadecimal digits that depend on the content of a JSON-like value alone."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artefact:
    """A finished folder of the store."""

    stage: str
    key: str
    path: Path

    def read(self, name: str) -> Any:
        """A JSON file of the folder."""
        return json.loads((self.path / name).read_text())

    @property
    def identity(self) -> Any:
        return self.read("identity.json")

    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def checksum(self, name: str) -> str:
        """The sha256 that a file of the folder had when it was made."""
        return str(self.read("checksums.json")[name])

    def damage(self, thorough: bool = True) -> str | None:
        """What is wrong with the folder, in words, or None: every file is there, as it was made. Of
        entries, which are checked one by one when they are read, only a thorough look reads all."""
        try:
            expected = self.read("checksums.json")
        except (FileNotFoundError, ValueError):
            return "checksums.json is missing or torn"
        if not isinstance(expected, dict):
            return "checksums.json is torn"
        for name, checksum in expected.items():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if _sha256(file) != checksum:
                return f"{name} differs from what was written"
        for name, size in self.read(SIZES).items() if SIZES in expected else ():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} is not as long as it was"
            if thorough and not _intact(file):
                return f"{name} differs from what was written"
        if fingerprint(self.read("identity.json")) != self.key:
            return "identity.json is another artefact's"
        return None


class Store:
    """The folder of all artefacts, `root/<stage>/<key>`."""

    def __init__(self, root: Path, say: Callable[[str], None] = lambda message: None) -> None:
        self.root = root
        self.say = say
        self._sound: set[Path] = set()  # verified once by this process

    def path(self, stage: str, identity: Identity) -> Path:
        return self.root / stage / fingerprint(identity)

    def has(self, stage: str, identity: Identity) -> bool:
        """Whether a sound artefact of this identity is there."""
        path = self.path(stage, identity)
        return self._is_sound(Artefact(stage, path.name, path))

    def get(self, stage: str, identity: Identity, produce: Callable[[Path], None]) -> Artefact:
        """The artefact of this identity; `produce` fills a scratch folder where there is none yet.

        A damaged artefact is named, set aside as `<key>.damaged` and produced again. Raises
        UserError where the disk is full or the folder cannot be written; nothing torn remains.
        """
        final = self.path(stage, identity)
        found = Artefact(stage, final.name, final)
        if self._is_sound(found):
            return found
        with _telling_about_disks(self.root):
            final.parent.mkdir(parents=True, exist_ok=True)
            with self._lock(final):
                if self._is_sound(found):  # another process made it while this one waited
                    return found
                self._clear(final)
                self._make(final, identity, produce)
        self._sound.add(final)
        return found

    def _make(self, final: Path, identity: Identity, produce: Callable[[Path], None]) -> None:
        scratch = final.with_name(f".{final.name}-{HOST}-{uuid4().hex[:8]}")
        try:
            scratch.mkdir()
            produce(scratch)
            _write_json(scratch / "identity.json", identity)
            entries = {file.name: file.stat().st_size for file in scratch.glob(f"*{ENTRIES}")}
            if entries:  # not read again: their own checksums lie beside them
                _write_json(scratch / SIZES, entries)
            files = sorted(file for file in scratch.rglob("*") if file.is_file())
            sums = {
                file.relative_to(scratch).as_posix(): _sha256(file)
                for file in files
                if file.suffix != ENTRIES
            }
            _write_json(scratch / "checksums.json", sums)
            try:
                scratch.rename(final)
            except OSError:
                if not final.exists():  # where locks do not reach, another may have been first
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _is_sound(self, artefact: Artefact) -> bool:
        """Whether the artefact is there and whole."""
        if artefact.path in self._sound and artefact.path.is_dir():
            return True
        if not artefact.path.is_dir() or artefact.damage(thorough=False) is not None:
            return False
        with _ignoring_read_only():
            os.utime(artefact.path)  # for pruning by the time of the last use
        self._sound.add(artefact.path)
        return True

    def _clear(self, final: Path) -> None:
        """Removes scratch that a killed process of this machine left (the lock is ours, so it is dead;
        of other machines' we cannot know), and sets a damaged artefact aside."""
        for scratch in final.parent.glob(f".{final.name}-{HOST}-*"):
            shutil.rmtree(scratch, ignore_errors=True)
        if final.is_dir():
            artefact = Artefact(final.parent.name, final.name, final)
            self.say(f"{final} is damaged ({artefact.damage(thorough=False)}): made again")
            self.set_aside(artefact)

    def set_aside(self, artefact: Artefact) -> None:
        """Renames a damaged artefact to `<key>.damaged`, so that it is made again when it is needed."""
        aside = artefact.path.with_name(artefact.path.name + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        artefact.path.rename(aside)
        self._sound.discard(artefact.path)

    @contextmanager
    def _lock(self, final: Path) -> Iterator[None]:
        lock = FileLock(_lock_of(final))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            self.say(f"waiting for another process that makes {final.parent.name} {final.name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def artefacts(self) -> list[Artefact]:
        """Every finished artefact."""
        folders = sorted(path for path in self.root.glob("*/*/") if "." not in path.name)
        return [Artefact(path.parent.name, path.name, path) for path in folders]

    def leftovers(self) -> list[Path]:
        """Scratch of killed processes (of other machines: not touched for a day), and damaged
        artefacts that were set aside."""
        dead = []
        for scratch in self.root.glob("*/.*-*/"):
            if f"-{HOST}-" not in scratch.name and _age(scratch) < 1:
                continue
            lock = FileLock(_lock_of(scratch.with_name(scratch.name[1:17])))
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue  # at work
            lock.release()
            dead.append(scratch)
        return sorted(dead) + sorted(self.root.glob("*/*.damaged/"))


def _lock_of(final: Path) -> Path:
    return final.with_name(f".{final.name}.lock")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path: Path) -> bool:
    from methods.recording.files import intact

    return intact(path)


@contextmanager
def _telling_about_disks(root: Path) -> Iterator[None]:
    """Turns what disks refuse into sentences."""
    try:
        yield
    except Exception as error:
        if says_full(error):
            raise _full(root) from error
        if not (isinstance(error, OSError) and error.errno in REFUSED):
            raise
        if not str(error.filename or "").startswith(str(root)):
            raise
        raise UserError(f"cannot write {root} ({error.strerror}): set paths.root=…") from error


def _full(root: Path) -> UserError:
    return UserError(
        f"the disk of {root} is full: free some space (python -m runner.store prune --unused helps) "
        "or choose another with paths.root=…; what was finished is safe, what was not is removed"
    )


@contextmanager
def _ignoring_read_only() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED:
            raise


# The command line


def main(arguments: list[str] | None = None) -> int:
    """python -m runner.store [list | verify | prune]"""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m runner.store", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("outputs"), help="paths.root of the runs")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="every artefact: size, age, what it was made from (default)")
    commands.add_parser("verify", help="check every file; exit 1 where one is damaged")
    prune = commands.add_parser("prune", help="delete artefacts; scratch of killed runs always goes")
    prune.add_argument("--older-than", type=_days, metavar="DAYS", help="not used for so many days")
    prune.add_argument(
        "--unused", action="store_true", help="no result was made from it, and none of today's runs"
    )
    prune.add_argument("--dry-run", action="store_true", help="say what would go, delete nothing")
    options = parser.parse_args(arguments)
    store = Store(options.root / "store")
    if options.command == "verify":
        return _verify(store)
    if options.command == "prune":
        return _prune(store, options.root / "results", options)
    return _list(store)


def _days(text: str) -> float:
    if not float(text) >= 0:
        raise ValueError(text)
    return float(text)


def _list(store: Store) -> int:
    from tabulate import tabulate

    found = store.artefacts()
    lines = [(a.stage, a.key, _human(a.size()), f"{_age(a.path):.1f} d", summary(a)) for a in found]
    if lines:
        print(tabulate(lines, headers=["stage", "key", "size", "last used", "made from"]))
    left = store.leftovers()
    total = sum(a.size() for a in found)
    print(f"{len(found)} artefacts, {_human(total)} in {store.root}" + _and_leftovers(left))
    return 0


def _verify(store: Store) -> int:
    bad = [(a, damage) for a in store.artefacts() if (damage := a.damage()) is not None]
    for artefact, damage in bad:
        print(f"{artefact.path}: {damage}; the next run that needs it makes it again")
    print(f"{len(store.artefacts())} artefacts, {len(bad)} damaged")
    return 1 if bad else 0


def _prune(store: Store, results: Path, options: Any) -> int:
    doomed = store.leftovers()
    for artefact in _unwanted(store, results, options):
        doomed.append(artefact.path)
    for path in doomed:
        print(f"{'would delete' if options.dry_run else 'deleting'} {path}")
        if not options.dry_run:
            shutil.rmtree(path)
    print(f"{len(doomed)} folders")
    return 0


def _unwanted(store: Store, results: Path, options: Any) -> list[Artefact]:
    """Artefacts that meet every condition that was given; none where none was. What was used within a
    day may belong to a run that has no result yet: it stays, unless an age is given."""
    if options.older_than is None and not options.unused:
        return []
    rows = results.glob("*/*.json") if options.unused else []
    used = {f"{stage}/{key}" for row in rows for stage, key in _artefacts_of(row)}
    age = 1 if options.older_than is None else options.older_than
    return [
        artefact
        for artefact in store.artefacts()
        if _age(artefact.path) > age and f"{artefact.stage}/{artefact.key}" not in used
    ]


def _artefacts_of(row: Path) -> list[tuple[str, str]]:
    try:
        return [(stage, key) for stage, key in json.loads(row.read_text())["artefacts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{row} is damaged: delete it, or nothing can be told to be unused") from error


def summary(artefact: Artefact) -> str:
    """What it was made from in a few words: the classes its identity names, and the seed."""
    try:
        identity = artefact.identity
    except (OSError, ValueError):
        return "damaged: python -m runner.store verify"
    words: list[str] = []

    def visit(value: Any) -> None:
        if isinstance(value, Mapping):
            if "class" in value:
                words.append(str(value["class"]).rsplit(".", 1)[-1])
            for inner in value.values():
                visit(inner)

    visit(identity)
    seeds = [f"seed {identity['seed']}"] if "seed" in identity else []
    return ", ".join([*dict.fromkeys(words), *seeds])


def _and_leftovers(left: list[Path]) -> str:
    return f"; {len(left)} leftovers of killed runs: python -m runner.store prune" if left else ""


def _age(path: Path) -> float:
    return (time.time() - path.stat().st_mtime) / 86400


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


if __name__ == "__main__":
    from runner.errors import exit_with_message

    with exit_with_message():
        sys.exit(main())
