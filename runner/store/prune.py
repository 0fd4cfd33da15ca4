"""Pruning: artefacts that are no longer wanted go, and so does the scratch of killed runs."""

import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.errors import UserError
from runner import sealed
from runner.store.artefact import Artefact
from runner.store.disks import age_in_days, naming_the_owner
from runner.store.making import ABOUT, STATE, scratch_of
from runner.store.marks import used
from runner.store.store import Store


@dataclass(frozen=True)
class Unwanted:
    """The artefacts that may go: unused for at least so many days, and unused by any result.

    An artefact that was used within the last day stays unless an age is given: it may belong to a run
    that has no result yet. All stay if neither an age nor `unused` is given.
    """

    older_than: float | None
    unused: bool

    def found_in(self, store: Store, results: Path) -> list[Artefact]:
        """Return the artefacts of a store that may go.

        Raise UserError if `unused` is asked and a result does not say what it was made from.
        """
        if self.older_than is None and not self.unused:
            return []
        files = results.glob("*/*.json") if self.unused else []
        made_from = {each for file in files for each in _artefacts_of(file)}
        age = 1 if self.older_than is None else self.older_than
        found = []
        for artefact in store.artefacts():
            with suppress(FileNotFoundError):  # another process deletes it too
                if age_in_days(artefact.path) > age and (artefact.stage, artefact.key) not in made_from:
                    found.append(artefact)
        return found


def _artefacts_of(result: Path) -> list[tuple[str, str]]:
    try:
        with naming_the_owner(result):
            return [(stage, key) for stage, key in sealed.read(result)["artefacts"]]
    except (ValueError, KeyError, TypeError) as error:
        told = sealed.damaged(result, result, error)
        raise UserError(f"{told}; until then nothing can be said to be unused") from error


class Prune:
    """Deletes folders of a store, or only names them if `dry_run` is true.

    It leaves symbolic links and artefacts in use alone, counts them, and collects in `refused` what this
    user may not delete. `say` receives a line for each folder.
    """

    def __init__(self, store: Store, dry_run: bool, say: Callable[[str], None]) -> None:
        self.store = store
        self.dry_run = dry_run
        self.say = say
        self.folders = self.in_use = self.links = 0
        self.refused: list[str] = []

    def leftovers(self) -> None:
        """Delete the scratch folders of killed processes, and damaged artefacts that were set aside."""
        for path in self.store.leftovers():
            if not path.is_symlink():
                self._delete(self._retired(path, self.store.retire))

    def unfinished(self, older_than: float | None) -> None:
        """Delete unfinished trainings whose state was written more than so many days ago, if an age is
        given."""
        if older_than is None:
            return
        for path in self.store.unfinished():
            with suppress(FileNotFoundError):  # a process goes on from it meanwhile
                if age_in_days(path / STATE / ABOUT) > older_than:
                    self._delete(self._retired(path, self.store.retire))

    def artefacts(self, unwanted: Iterable[Artefact]) -> None:
        """Delete artefacts."""
        retired = []
        with used(self.store.root) as busy:  # nothing begins to be used while folders are renamed
            for artefact in unwanted:
                if artefact.path.is_symlink():
                    self.links += 1
                elif f"{artefact.stage}/{artefact.key}" in busy:
                    self.in_use += 1
                else:
                    scratch = scratch_of(artefact)
                    retired += self._retired(artefact.path, partial(Path.rename, target=scratch))
        self._delete(retired)

    def _retired(self, path: Path, rename: Callable[[Path], Path | None]) -> list[tuple[Path, Path]]:
        """Rename a folder, so that no process finds it any more. Return both paths, or nothing if that
        fails."""
        if self.dry_run:
            return [(path, path)]
        try:
            renamed = rename(path)
        except FileNotFoundError:  # another process was first
            return []
        except OSError as error:
            self.refused.append(f"{path} ({error.strerror})")
            return []
        return [] if renamed is None else [(path, renamed)]

    def _delete(self, folders: Iterable[tuple[Path, Path]]) -> None:
        """Delete folders, each given by its name for the user and its path now."""
        for name, path in folders:
            self.folders += 1
            self.say(f"{'would delete' if self.dry_run else 'deleting'} {name}")
            if self.dry_run:
                continue
            try:
                shutil.rmtree(path)
            except FileNotFoundError:  # another process deletes it too
                shutil.rmtree(path, ignore_errors=True)
            except OSError as error:
                self.refused.append(f"{path} ({error.strerror})")
