"""Locks: the machines on which artefacts are being made. To look keeps no process waiting."""

import fcntl
import os
import re
from contextlib import suppress

from runner.store import Artefact
from runner.store.making import member


def machine_of(artefact: Artefact) -> str | None:
    """Return the machine on which a process makes an artefact, as far as its locks reach; else None."""
    try:
        descriptor = os.open(artefact.path.with_name(f".{artefact.key}.lock"), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _machine(artefact)
    finally:
        os.close(descriptor)
    return None


def _machine(artefact: Artefact) -> str:
    """Return the machine that the newest scratch folder with an artefact's files names.

    It lies beside the first of the artefacts that are made together.
    """
    ages = {}
    for files in artefact.path.parent.parent.glob(f"*/.*-*/{member(artefact)}"):
        with suppress(FileNotFoundError):
            ages[files.parent] = files.stat().st_mtime
    newest = max(ages, key=lambda scratch: ages[scratch], default=None)
    found = None if newest is None else re.fullmatch(r"\.\w+-\w+-(.*)-\w+", newest.name)
    return "another machine" if found is None else found[1]
