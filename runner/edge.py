"""Where errors meet people: a sentence and exit code 1 for their mistakes, a traceback for ours."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from data.errors import UserError

EXPECTED = (UserError, HydraException, OmegaConfBaseException, OSError)


@contextmanager
def telling() -> Iterator[None]:
    """Ends the process with a sentence where the body meets a user's mistake. HYDRA_FULL_ERROR=1
    shows the traceback instead."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print a traceback of its own and exit
    try:
        yield
    except EXPECTED as error:
        if full:
            raise
        sys.exit(f"error: {sentence(error)}")
    except ValueError as error:
        if full or not str(error).startswith("Config group override"):
            raise
        sys.exit("error: a group of options cannot be set to null: leave it out with ~<group>")
    except KeyboardInterrupt:
        sys.exit("interrupted: what was finished is kept, the same command goes on from there")


def sentence(error: Exception) -> str:
    """What went wrong, on as few lines as the error needs."""
    if isinstance(error, HydraException):
        # Hydra says which override failed and keeps why to itself
        reason = next(iter(str(error.__cause__ or "").splitlines()), "")
        return f"{str(error).strip()}\n{reason}".strip()
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}; if this is where results go, set paths.root=…"
    return str(error).strip()
