"""List, verify and prune the store, and take a model away.

python -m runner.store           # every artefact (the same as `list`)
python -m runner.store verify    # check every file
python -m runner.store prune     # delete scratch of killed runs; artefacts with --unused or --older-than
python -m runner.store export name=digits_small_cnn_whole_class model.safetensors
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from data.errors import UserError
from runner.arguments import Parser
from runner.errors import exit_with_message
from runner.naming import folder_of
from runner.store.artefact import Artefact
from runner.store.disks import age_in_days
from runner.store.prune import Prune, Unwanted
from runner.store.store import Store

Seen = TypeVar("Seen")


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the store and return its exit status."""
    options = _parsed(sys.argv[1:] if arguments is None else arguments)
    store = Store(options.root / "store")
    if options.command == "verify":
        return _verify(store)
    if options.command == "prune":
        return _prune(store, options.root / "results", options)
    if options.command == "export":
        return _export(options.root, options.model, options.file)
    return _list(store)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options. The root may stand anywhere, also as the other commands write it."""
    root = Parser(add_help=False)
    about = "paths.root of the runs; paths.root=… does the same"
    root.add_argument("--root", type=_root, default=Path("outputs"), help=about)
    written = [re.sub(r"^paths\.root=", "--root=", argument) for argument in arguments]
    given, rest = root.parse_known_args(written)
    return _parser(root).parse_args(rest, given)


def _parser(root: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m runner.store",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[root],
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="every artefact: size, age, what it was made from (default)")
    commands.add_parser("verify", help="check every file; exit 1 if one is damaged")
    prune = commands.add_parser("prune", help="delete artefacts; scratch of killed runs always goes")
    prune.add_argument("--older-than", type=_days, metavar="DAYS", help="unused for at least DAYS days")
    prune.add_argument(
        "--unused", action="store_true", help="no result was made from it, and no run of the last day"
    )
    prune.add_argument("--dry-run", action="store_true", help="name what would go, delete nothing")
    export = commands.add_parser("export", help="copy a model, with its configuration beside it")
    export.add_argument("model", metavar="KEY|name=…", help="of a result or a model, or a single result")
    export.add_argument("file", type=Path, metavar="FILE.safetensors")
    return parser


def _root(text: str) -> Path:
    return folder_of("--root", text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1
    if not days >= 0:
        raise UserError(f"--older-than={text}: it must be a number of days, 0 or more")
    return days


def _list(store: Store) -> int:
    from tabulate import tabulate

    lines, refused = _seen(store, _line)
    if lines:
        table = [(stage, key, _human(size), age, text) for stage, key, size, age, text in lines]
        print(tabulate(table, headers=["stage", "key", "size", "last used", "made from"]))
    left = len(store.leftovers())
    again = f"python -m runner.store --root {store.root.parent} prune"
    killed = f"; {left} leftovers of killed runs: {again}" if left else ""
    waiting = len(store.unfinished())
    goes_on = (
        f"; {waiting} unfinished trainings go on when their command is said again" if waiting else ""
    )
    total = sum(size for _, _, size, _, _ in lines)
    print(f"{len(lines)} artefacts, {_human(total)} in {store.root}{killed}{goes_on}")
    return _named("cannot be read", refused)


def _line(artefact: Artefact) -> tuple[str, str, int, str, str]:
    age = f"{age_in_days(artefact.path):.1f} d"
    return artefact.stage, artefact.key, artefact.size(), age, summary(artefact)


def _verify(store: Store) -> int:
    found, refused = _seen(store, lambda artefact: (artefact.path, artefact.damage()))
    bad = [(path, damage) for path, damage in found if damage is not None]
    for path, damage in bad:
        print(f"{path}: {damage}; the next run that needs it makes it again")
    print(f"{len(found)} artefacts, {len(bad)} damaged")
    return max(_named("cannot be read", refused), 1 if bad else 0)


def _seen(store: Store, look: Callable[[Artefact], Seen]) -> tuple[list[Seen], list[str]]:
    """Look at every artefact. Return what was seen, and the artefacts that this user may not read.

    One that is deleted meanwhile is left out.
    """
    found, refused = [], []
    for artefact in store.artefacts():
        try:
            seen = look(artefact)
        except FileNotFoundError:
            continue
        except PermissionError as error:
            refused.append(f"{artefact.path} ({error.strerror})")
            continue
        if artefact.path.is_dir():
            found.append(seen)
    return found, refused


def _prune(store: Store, results: Path, options: Any) -> int:
    prune = Prune(store, options.dry_run, print)
    prune.leftovers()
    prune.unfinished(options.older_than)
    prune.artefacts(Unwanted(options.older_than, options.unused).found_in(store, results))
    print(f"{prune.folders} folders {'would go' if options.dry_run else 'deleted'}")
    if prune.in_use:
        print(f"{prune.in_use} stay: running processes use them")
    if prune.links:
        print(f"{prune.links} stay: they are symbolic links")
    return _named("cannot be deleted", prune.refused)


def _export(root: Path, asked: str, file: Path) -> int:
    from runner.store.export import export

    print(f"{file}, {export(root, asked, file)}")
    return 0


def _named(what: str, refused: list[str]) -> int:
    """Name what was refused to this user; return the exit status."""
    if refused:
        print(f"{len(refused)} {what}: {'; '.join(refused)}")
    return 1 if refused else 0


def summary(artefact: Artefact) -> str:
    """Return the inputs of an artefact in words: the components of its identity, and the seed."""
    try:
        identity = artefact.identity
    except PermissionError:
        raise
    except (OSError, ValueError):
        return "damaged: python -m runner.store verify"
    words: list[str] = []

    def visit(value: Any) -> None:
        if isinstance(value, Mapping):
            if "class" in value:
                words.append(str(value["class"]).rsplit(".", 1)[-1])
            for inner in value.values():
                visit(inner)

    visit(identity)
    seeds = [f"seed {identity['seed']}"] if "seed" in identity else []
    return ", ".join([*dict.fromkeys(words), *seeds])


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


if __name__ == "__main__":
    with exit_with_message():
        sys.exit(main())
