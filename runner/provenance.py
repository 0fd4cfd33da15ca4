"""The software and hardware that made a result: recorded beside it, and not part of its key."""

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from runner.own_code import digests
from runner.processes import TEAM
from runner.store import Identity


def provenance(device: torch.device, threads: int) -> dict[str, Any]:
    """Return the commit, the versions, the device, the numbers of threads and processes, and the time
    (UTC)."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        **code(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": gpu or str(device),
        "threads": threads,
        "processes": TEAM.processes.count,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def maker(device: torch.device, threads: int, identities: Sequence[Identity]) -> dict[str, Any]:
    """Return what decides the bits of a training beside its inputs, by the names that users know.

    `identities` are those of what it makes. Each of the user's components in them has a name of its own:
    a command without a recorder of theirs goes on without its code.
    """
    found = provenance(device, threads)
    return {
        "code": _sources(),
        **digests(list(identities)),
        **{name: found[name] for name in ("torch", "machine", "device", "threads", "processes")},
    }


@cache
def _sources() -> str:
    """Return a digest of the modules that a training runs: all but those that report on it."""
    root = Path(__file__).parent.parent
    found = hashlib.sha256()
    for folder in ("data", "models", "methods", "runner/stages"):
        for file in sorted((root / folder).rglob("*.py")):
            found.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return found.hexdigest()[:16]


@cache
def code() -> dict[str, Any]:
    """Return the commit of the checkout and whether files were changed; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(here, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
