"""The exception for mistakes that a user can correct."""


class UserError(Exception):
    """A mistake or a missing file that the user can correct. The message is one sentence with the cure.

    The command line prints the message alone and exits with 1. Any other exception is a bug and keeps
    its traceback.
    """


class ComponentError(UserError):
    """A component breaks the rules of its interface. The command line puts its name and file before the
    message."""


def reason(error: Exception) -> str:
    """Return the first line of an error's message, below which torch may append its C++ stack; the name
    of its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
