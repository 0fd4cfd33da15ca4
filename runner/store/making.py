"""Work on artefacts: its scratch folder, and how killed work goes on.

All artefacts that one piece of work makes lie in one scratch folder beside the first of them by path,
the lead: `.<key>-<machine>-<host>-<random>`. Long work writes a state into it. If the work is
interrupted, the folder becomes `.<key>.state`; after a hard kill it stays as it is. Whoever has the
lead's lock next takes the folder over and goes on.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from data.disk import says_full
from data.errors import UserError
from runner.store.artefact import Artefact, Identity, seal, sha256_of
from runner.store.marks import HOST, MACHINE

# The folder of a state in a scratch folder, and its last file, which makes it complete: a JSON object
# with the `members` that the state covers, whether they are made `together`, its `maker`, which is the
# code and the machine, and the `file` of its tensors with their `sha256`.
STATE, ABOUT = "state", "state.json"

Maker = Mapping[str, Any]


class Making:
    """The artefacts that one piece of work makes: a folder for each that is missing, by name.

    `keep(name)` turns a filled folder into an artefact at once, so that a later failure cannot remove
    it. Folders that are not kept are removed when the work ends, unless the work can go on from the
    state that it has written into the folder `state`. The state of work that makes its artefacts
    `together` goes on for all of them alone, any other also without some of them.
    """

    def __init__(
        self,
        missing: Mapping[str, tuple[Artefact, Identity]],
        maker: Callable[[], Maker],
        together: bool,
    ) -> None:
        self._missing = missing
        self._maker = maker
        self._together = together
        self.lead = min((artefact for artefact, _ in missing.values()), key=lambda each: each.path)
        self.scratch = scratch_of(self.lead)
        self.folders = {name: self.scratch / member(each) for name, (each, _) in missing.items()}
        self.state = self.scratch / STATE
        self.kept: list[Artefact] = []

    def identity(self, name: str) -> Identity:
        """Return the identity of the artefact of this name."""
        return self._missing[name][1]

    def keep(self, name: str) -> Artefact:
        """Turn the folder of this name into an artefact, and return it."""
        artefact, identity = self._missing[name]
        seal(self.folders[name], identity)
        try:
            self.folders[name].rename(artefact.path)
        except OSError:
            if not artefact.path.exists():  # without locks another machine may have been first
                raise
        self.kept.append(artefact)
        return artefact

    def goes_on_after(self, error: BaseException) -> bool:
        """Return whether the work can go on from its state: not after a mistake of the user's, which
        another setting mends, and not if the disk is full."""
        mended = isinstance(error, UserError) or says_full(error)
        return not mended and not self.kept and is_unfinished(self.scratch)

    def about(self) -> dict[str, Any]:
        """Return what a state says of its work."""
        return {"members": self._members(), "together": self._together, "maker": self._maker()}

    def _members(self) -> list[str]:
        return sorted(folder.name for folder in self.folders.values())

    def take_over(self, say: Callable[[str], None]) -> None:
        """Take the newest state of earlier work. One that does not fit is set aside, with a message."""
        for found in _unfinished(self.lead):
            with suppress(FileNotFoundError):  # without locks another machine may take it first
                reason = self._misfit(found)
                if reason is None:
                    _take(found, self.scratch)
                    say(f"{self.lead.stage} {self.lead.key} goes on from the state of a killed run")
                    return
                if is_elsewhere(found):
                    continue
                aside = found.with_name(f".{self.lead.key}.aside")
                shutil.rmtree(aside, ignore_errors=True)
                found.rename(aside)
                say(f"the state of a killed {self.lead.stage} {reason}: it begins anew; see {aside}")

    def _misfit(self, found: Path) -> str | None:
        """Return why the work cannot go on from a state, or None if it can."""
        about = json.loads((found / STATE / ABOUT).read_text())
        if not _is_intact(found / STATE):
            return "differs from what was written"
        there, here = about["maker"], self._maker()
        differing = [name for name in here if there.get(name) != here[name]]
        if differing:
            words = [f"{name}={there.get(name)}, here {here[name]}" for name in differing]
            return f"was written with {', '.join(words)}"
        members = self._members()
        if self._together or about["together"]:
            return None if members == about["members"] else "is of other models, trained together"
        # a member that was stored since then has no folder any more
        if not all(name in about["members"] and (found / name).is_dir() for name in members):
            return "is of a training without one of the records"
        return None

    def __enter__(self) -> "Making":
        for folder in (*self.folders.values(), self.state):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self.goes_on_after(error):
            with suppress(OSError):  # another machine's is there: this one stays, as after a hard kill
                self.scratch.rename(_parked(self.lead))
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)


def member(artefact: Artefact) -> str:
    """Return the name of an artefact's folder in a scratch folder."""
    return f"{artefact.stage}.{artefact.key}"


def scratch_of(artefact: Artefact) -> Path:
    """Return the path of a new scratch folder beside an artefact."""
    return artefact.path.with_name(f".{artefact.key}-{MACHINE}-{HOST}-{uuid4().hex[:8]}")


def is_unfinished(scratch: Path) -> bool:
    """Return whether a scratch folder has a complete state, from which its work can go on."""
    return (scratch / STATE / ABOUT).is_file()


def _is_intact(state: Path) -> bool:
    """Return whether the tensors of a state are those that were written."""
    about = json.loads((state / ABOUT).read_text())
    return sha256_of(state / about["file"]) == str(about["sha256"])


def _parked(lead: Artefact) -> Path:
    return lead.path.with_name(f".{lead.key}.state")


def _unfinished(lead: Artefact) -> Iterator[Path]:
    """Yield the folders that work on an artefact can go on from, the newest state first."""
    places = [_parked(lead), *lead.path.parent.glob(f".{lead.key}-*")]
    ages: dict[Path, float] = {}
    for place in places:
        with suppress(FileNotFoundError):
            ages[place] = (place / STATE / ABOUT).stat().st_mtime
    yield from sorted(ages, key=lambda place: ages[place], reverse=True)


def is_elsewhere(scratch: Path) -> bool:
    """Return whether a process of another machine may be at work, whose locks do not reach this one."""
    return not scratch.name.endswith(".state") and f"-{MACHINE}-" not in scratch.name


def _take(found: Path, scratch: Path) -> None:
    """Move a scratch folder. One of another machine is copied, since its process may be alive.

    Raise FileNotFoundError if that process writes another state meanwhile.
    """
    if not is_elsewhere(found):
        found.rename(scratch)
        return
    try:
        # the state first: files that it measures only grow, and copies that it names stay while it does
        arriving = scratch / "arriving"
        shutil.copytree(found / STATE, arriving)
        for folder in found.iterdir():
            if folder.name != STATE:
                shutil.copytree(folder, scratch / folder.name)
        same = (arriving / ABOUT).read_bytes() == (found / STATE / ABOUT).read_bytes()
        if not (same and _is_intact(arriving)):
            raise FileNotFoundError(found)
        arriving.rename(scratch / STATE)
    except (shutil.Error, FileNotFoundError) as error:  # a file went away meanwhile
        shutil.rmtree(scratch, ignore_errors=True)
        raise FileNotFoundError(found) from error
