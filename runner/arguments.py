"""Command-line arguments: flags anywhere among the options, and options under their former names."""

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from data.errors import UserError
from runner.scales import scaled
from runner.wording import suggestion

# The former name of an option group, and its name now.
RENAMED = {"line": "variant"}

HELP = ("-h", "--help")

# The option that asks for a listing instead of a run, and the values by which OmegaConf means true.
PLAN = re.compile(r"[+]*plan=(.*)")
TRUE = ("true", "yes", "on", "y", "1")


class Parser(ArgumentParser):
    """argparse, whose errors are sentences."""

    def error(self, message: str) -> NoReturn:
        raise UserError(told(message, self))


def told(message: str, parser: ArgumentParser) -> str:
    """Return argparse's message as a sentence; of an unknown flag, name the nearest."""
    flags = [*HELP, *re.findall(r"(?<![\w-])--[a-z][\w-]*", parser.format_usage())]
    if found := re.fullmatch(r"unrecognized arguments: (-\S*).*", message):
        return f"there is no {found[1]}{suggestion(found[1], flags)}: --help names what there is"
    return f"{message}: --help names what there is"


def arranged(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of Hydra's command line under their present names, its flags first.

    Raise UserError if a flag is unknown or lacks its value.
    """
    options = parsed(arguments).overrides
    return [each for each in arguments if each not in options] + renamed(options)


def parsed(arguments: Sequence[str]) -> Namespace:
    """Return Hydra's command line: its flags, and `overrides`.

    Raise UserError if a flag is unknown or lacks its value.
    """
    return Parser(parents=[get_args_parser()], add_help=False).parse_intermixed_args(list(arguments))


def asks_for_a_plan(arguments: Sequence[str]) -> bool:
    """Return whether the last `plan=…` among the arguments is true."""
    asked = [found for text in arguments if (found := PLAN.fullmatch(text))]
    return bool(asked) and asked[-1][1].lower() in TRUE


def refuse_flags(arguments: Sequence[str], flags: Collection[str]) -> None:
    """Raise UserError if an argument is a flag, but none of the known ones."""
    for argument in arguments:
        if argument[:1] == "-" and argument not in flags:
            near = suggestion(argument, [*flags, *HELP])
            raise UserError(f"there is no {argument}{near}: --help names what there is")


def renamed(arguments: Sequence[str]) -> list[str]:
    """Return the arguments under their present names, with the file of their preset and scale.

    Name each replacement on stderr.
    """
    return scaled([_renamed(argument) for argument in arguments])


def _renamed(argument: str) -> str:
    found = re.fullmatch(r"([+~]*)(\w+)(=.*)?", argument, re.DOTALL)
    if found is None or found[2] not in RENAMED:
        return argument
    former, now = found[2], RENAMED[found[2]]
    replaced = f"{found[1]}{now}{found[3] or ''}"
    print(
        f"{former}= is now {now}=: write {replaced}; {former}= will be gone in the next release",
        file=sys.stderr,
        flush=True,
    )
    return replaced
