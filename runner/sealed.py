"""JSON files that carry the digest of their content, by which damage is found."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.disk import replacing
from data.errors import UserError
from runner.naming import command_of
from runner.store.artefact import fingerprint

DIGEST = "digest"


class DamagedResult(UserError):
    """A result or its matrices differ from what was written."""


def write(path: Path, content: Mapping[str, Any], indent: int | None) -> None:
    """Write the content and its digest, in place of an earlier file; none is seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = json.loads(json.dumps(content))  # as it will be read: lists for tuples, names of keys
    with replacing(path) as scratch:
        scratch.write_text(json.dumps({**stored, DIGEST: fingerprint(stored)}, indent=indent))


def read(path: Path) -> dict[str, Any]:
    """Return the content of a file. One that was written before files had a digest is not checked.

    Raise ValueError if the file holds no JSON object, or differs from what was written.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    if content.pop(DIGEST, None) not in (None, fingerprint(content)):
        raise ValueError("it differs from what was written")
    return content


def damaged(path: Path, row: Path, reason: object) -> DamagedResult:
    """Return the error of a damaged file, with the commands that make it again as far as they are known:
    `row` is the file of the result, which holds them."""
    return DamagedResult(f"{path} is damaged ({reason}); {_made_again(row)}")


def overrides_in(path: Path) -> list[str]:
    """Return the overrides of the result in a file, of which only these are read: it may be damaged
    elsewhere. Raise OSError or ValueError if they cannot be read."""
    return list(map(str, _value_in(path, "overrides")))


def name_in(path: Path) -> str:
    """Return the name under which the result in a file was written, as `overrides_in` the overrides."""
    return str(_value_in(path, "name"))


def _value_in(path: Path, name: str) -> Any:
    _, _, rest = path.read_text(errors="replace").partition(f'"{name}": ')
    found, _ = json.JSONDecoder().raw_decode(rest)
    return found


def _made_again(row: Path) -> str:
    try:
        commands = [overrides_in(row)]
    except (OSError, ValueError, TypeError):
        return "make it again with the command that made it: the stages that it needs are stored"
    with suppress(OSError, ValueError, TypeError):  # rows of earlier versions have no further commands
        commands += [list(map(str, each)) for each in _value_in(row, "also")]
    return f"make it again with {', then '.join(map(command_of, commands))}"
