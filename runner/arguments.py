"""Command-line arguments: flags anywhere among the options, and options under their former names."""

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from data.errors import UserError
from runner.scales import GROUP, scaled
from runner.wording import suggestion

# The former name of an option group, and its name now.
RENAMED = {"line": "variant"}

HELP = ("-h", "--help")

# The option that asks for a listing instead of a run, and the values by which OmegaConf means true.
PLAN = re.compile(r"[+]*plan=(.*)")
TRUE = ("true", "yes", "on", "y", "1")


# A choice among one value, as a sweep makes of an override that waits for its cells.
ALONE = re.compile(r"^([^=]+=)choice\((.*)\)$", re.DOTALL)


class Parser(ArgumentParser):
    """argparse, whose errors are sentences."""

    def error(self, message: str) -> NoReturn:
        raise UserError(told(message, self))


def told(message: str, parser: ArgumentParser) -> str:
    """Return argparse's message as a sentence; of an unknown flag or choice, name the nearest."""
    flags = [*HELP, *re.findall(r"(?<![\w-])--[a-z][\w-]*", parser.format_usage())]
    if found := re.fullmatch(r"unrecognized arguments: (-\S*).*", message):
        return f"there is no {found[1]}{suggestion(found[1], flags)}: --help names what there is"
    if found := re.fullmatch(r"argument \S+: invalid choice: '(.*?)' \(choose from (.*)\)", message):
        known = re.findall(r"[\w-]+", found[2])
        return f"there is no {found[1]}{suggestion(found[1], known)}: choose from {', '.join(known)}"
    return f"{message}: --help names what there is"


def arranged(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of Hydra's command line under their present names, its flags first.

    Raise UserError if a flag is unknown or lacks its value.
    """
    given = parsed(arguments)
    flags = [each for each in arguments if each not in given.overrides]
    options = renamed(given.overrides)
    return flags + (deferred(options) if given.multirun else options)


def typed(arguments: Sequence[str]) -> list[str]:
    """Return arranged arguments as they were typed: without what follows from the others."""
    plain = [ALONE.sub(r"\1\2", each) for each in arguments if not each.startswith(f"{GROUP}=")]
    return plain if {*arranged(plain)} == {*arguments} else list(arguments)


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
    """Return the arguments under their present names, with the file of their preset and scale, and paths
    from the home folder in full.

    Name each replacement of a name on stderr.
    """
    return scaled([_renamed(_from_home(argument)) for argument in arguments])


def deferred(options: Sequence[str]) -> list[str]:
    """Return the overrides of a sweep; those below a group that it sweeps over wait for its cells.

    Hydra first composes what is not swept, with the default of every group that is: of
    `method=ssd,scrub method.alpha=1` it would say that the default method has no alpha. A choice among
    one value counts as swept.
    """
    found = OverridesParser.create().parse_overrides(list(options))
    swept = tuple(f"{each.key_or_group}." for each in found if each.is_sweep_override())
    return [_choice(each) if _waits(each, swept) else str(each.input_line) for each in found]


def _waits(override: Override, swept: tuple[str, ...]) -> bool:
    below = override.key_or_group.startswith(swept)
    plain = not override.is_sweep_override() and not override.is_delete()
    return below and plain and override.value() is not None  # Hydra has no choice among null


def _choice(override: Override) -> str:
    option, _, value = str(override.input_line).partition("=")
    return f"{option}=choice({value})"


def _from_home(argument: str) -> str:
    """Return paths.root=~/runs in full, which a shell leaves as it is, and Hydra cannot read."""
    option, _, value = argument.partition("=")
    return f"{option}={Path(value).expanduser()}" if value.startswith("~/") else argument


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
