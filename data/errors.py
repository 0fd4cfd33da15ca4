"""Exceptions for what a user can mend."""


class UserError(Exception):
    """A mistake or a missing thing the user can mend; the message is a sentence that names the cure.

    The command line prints the message alone and exits with 1. Everything else is a bug and keeps
    its traceback.
    """


class ComponentError(UserError):
    """A component breaks the rules of its interface. The command line puts its name and file before the
    message."""
