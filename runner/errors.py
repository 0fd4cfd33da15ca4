"""The edge of the program: a sentence and exit code 1 for a user's mistake, a traceback for a bug."""

import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from hydra.core.utils import env_override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from data.errors import ComponentError, UserError
from runner.arguments import HELP, refuse_flags
from runner.foreign import blamed, located
from runner.signals import ENDING, Ended
from runner.wording import reworded

# Hydra's variable, by which users ask for tracebacks; and ours, which keeps their wish while Hydra's is
# set so that Hydra lets exceptions pass. Processes of a sweep inherit both.
HYDRA, WISH = "HYDRA_FULL_ERROR", "UNLEARN_FULL_ERROR"


# Told below the help of every command that composes a configuration.
OPTIONS = "Options are those of a run: python -m runner --help names their choices."


def run_command(
    main: Callable[[list[str]], None], about: str | None, flags: Collection[str] = ()
) -> None:
    """Run `main` on the arguments of the process, or print `about` if they ask for help.

    Arguments are options of a run, and the `flags` of the command.
    """
    arguments = sys.argv[1:]
    with exit_with_message():
        if set(HELP) & set(arguments):
            print(f"{about}\n{OPTIONS}")
        else:
            refuse_flags(arguments, flags)
            main(arguments)


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Exit with a sentence and code 1 if the body raises an error that `message_of` has a sentence for.

    If a signal ends the body, the code is that of `Ended`; if the reader of stdout has gone, as `head`
    does, it is that of SIGPIPE, without a word. With HYDRA_FULL_ERROR=1 every error keeps its traceback.
    """
    wanted = wants_traceback()
    with (
        env_override({HYDRA: "1", WISH: str(int(wanted))}),
        ENDING.handling(),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("error", "provider=hydra.searchpath")  # a folder that is not there
        try:
            yield
            sys.stdout.flush()
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                # what is left in the buffer goes nowhere, or Python would say so at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(128 + signal.SIGPIPE)
            text = None if wanted else message_of(error)
            if text is None:
                raise
            sys.exit(f"error: {text}")
        except Ended as end:
            print(f"\n{end}", file=sys.stderr, flush=True)
            sys.exit(end.code)


def _nobody_reads() -> bool:
    """Return whether stdout is a pipe whose reader has gone."""
    watch = select.poll()
    watch.register(sys.stdout, 0)  # errors alone
    return any(event & select.POLLERR for _, event in watch.poll(0))


def wants_traceback() -> bool:
    """Return whether the user asked for tracebacks with HYDRA_FULL_ERROR=1."""
    return os.environ.get(WISH, os.environ.get(HYDRA)) == "1"


def text_of(error: Exception) -> str:
    """Return what to say of an error that goes no further: its sentence, or else its traceback."""
    return (None if wants_traceback() else message_of(error)) or traceback.format_exc()


def message_of(error: Exception) -> str | None:
    """Return a sentence that says what went wrong and names the cure; None for a bug of this project."""
    if (text := reworded(error)) is not None:
        return text
    if isinstance(error, ComponentError):
        return located(error)
    if isinstance(error, UserError):
        return str(error).strip()
    if isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(str(error).split())
    if type(error).__name__ == "OutOfMemoryError":  # torch's; importing torch takes a second
        return "the GPU's memory is too small: set a smaller batch size, or device=cpu"
    if (text := blamed(error)) is not None:
        return text
    if isinstance(error, ConnectionError):
        return str(error)
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{place}; if results go there, set another paths.root=…"
    return None
