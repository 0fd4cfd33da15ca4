"""Where errors meet people: a sentence and exit code 1 for their mistakes, a traceback for ours."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from data.errors import UserError

# What Hydra and OmegaConf say of common mistakes, and what helps.
HINTS = {
    r"Config group override must be a string": "leave the option out; repair=none, recorder=[], "
    "evaluation=quick and tracking=off switch things off",
    r"Could not override '(recorder|figure)\.(\w+)": r"choose it first: \1=[\2]",
    r"Could not override 'repair\.": "choose one first: repair=epochs",
    r"interpolation '\$\{dataset\}_\$\{model\}": "give every group one option; a sweep is -m method=a,b",
}


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Ends the process with a sentence where the body meets a user's mistake. HYDRA_FULL_ERROR=1
    shows the traceback instead."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print a traceback of its own and exit
    try:
        yield
    except Exception as error:
        text = message_of(error)
        if full or text is None:
            raise
        sys.exit(f"error: {text}")
    except KeyboardInterrupt:
        sys.exit("interrupted: what was finished is kept, the same command goes on from there")


def message_of(error: Exception) -> str | None:
    """What went wrong and what helps, on as few lines as it needs; None where no user did it."""
    for pattern, hint in HINTS.items():
        if found := re.search(pattern, str(error)):
            return f"{str(error).splitlines()[0]}\n{found.expand(hint)}"
    if isinstance(error, HydraException):
        # Hydra says which override failed and keeps why to itself
        reason = next(iter(str(error.__cause__ or "").splitlines()), "")
        return f"{str(error).strip()}\n{reason}".strip()
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for a sentence
        return "the GPU's memory is too small: set a smaller batch size, or device=cpu"
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}; if this is where results go, set paths.root=…"
    return str(error).strip() if isinstance(error, UserError | OmegaConfBaseException) else None
