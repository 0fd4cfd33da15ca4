"""Artefacts: finished folders of the store, with their identity and the checksums of their files."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.disk import ENTRIES

Identity = Mapping[str, Any]

IDENTITY, SIZES, CHECKSUMS = "identity.json", "sizes.json", "checksums.json"


def fingerprint(identity: Any) -> str:
    """Return 16 hexadecimal digits that depend on the content of a JSON-like value alone."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artefact:
    """A folder of the store, `<stage>/<key>`."""

    stage: str
    key: str
    path: Path

    def read(self, name: str) -> Any:
        """Return the content of a JSON file of the folder."""
        return json.loads((self.path / name).read_text())

    @property
    def identity(self) -> Any:
        """All inputs that the artefact was made from."""
        return self.read(IDENTITY)

    def size(self, without: Collection[str] = ()) -> int:
        """Return the bytes of all files together, but those of the names `without`."""
        files = (file for file in self.path.rglob("*") if file.is_file() and file.name not in without)
        return sum(file.stat().st_size for file in files)

    def checksum(self, name: str) -> str:
        """Return the sha256 that a file of the folder had when it was made."""
        return str(self.read(CHECKSUMS)[name])

    def damage(self, thorough: bool = True) -> str | None:
        """Return a description of the first damage found, or None if every file is intact.

        Readers of a file of entries check each entry. Its content is therefore checked here only if
        `thorough` is true; otherwise its size is compared. Raise PermissionError if a file may not be
        read, which is no damage.
        """
        expected = self._checksums()
        if expected is None:
            return f"{CHECKSUMS} is missing or torn"
        for name, checksum in expected.items():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if sha256_of(file) != checksum:
                return f"{name} differs from what was written"
        for name, size in self.read(SIZES).items() if SIZES in expected else ():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} is not as long as it was"
            if thorough and not _entries_are_intact(file):
                return f"{name} differs from what was written"
        if fingerprint(self.identity) != self.key:
            return f"{IDENTITY} is another artefact's"
        return None

    def _checksums(self) -> dict[str, str] | None:
        """Return the checksums by file name, or None if their file is not as the store writes it."""
        try:
            text = (self.path / CHECKSUMS).read_text()
            expected = json.loads(text)
        except PermissionError:
            raise
        except (OSError, ValueError):
            return None
        # No checksum covers this file, so its text must be exactly what the store would write.
        if not isinstance(expected, dict) or text != _json(expected):
            return None
        return expected


def seal(folder: Path, identity: Identity) -> None:
    """Write the files that make a filled folder an artefact: its identity and its checksums."""
    (folder / IDENTITY).write_text(_json(identity))
    # Each file of entries has a file of checksums beside it. Hashing the entries again would read
    # gigabytes, which takes longer than writing them did.
    entries = {file.name: file.stat().st_size for file in folder.glob(f"*{ENTRIES}")}
    if entries:
        (folder / SIZES).write_text(_json(entries))
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ENTRIES)
    checksums = {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}
    (folder / CHECKSUMS).write_text(_json(checksums))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _entries_are_intact(path: Path) -> bool:
    from methods.recording.files import intact  # imports torch, which a listing does not need

    return intact(path)
