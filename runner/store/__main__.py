"""List, verify and prune the store.

python -m runner.store           # every artefact (the same as `list`)
python -m runner.store verify    # check every file
python -m runner.store prune     # delete artefacts that are no longer wanted
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import UserError
from runner.arguments import Parser
from runner.errors import exit_with_message
from runner.store.artefact import Artefact
from runner.store.disks import age_in_days
from runner.store.store import Store


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the store and return its exit status."""
    options = _parser().parse_args(arguments)
    store = Store(options.root / "store")
    if options.command == "verify":
        return _verify(store)
    if options.command == "prune":
        return _prune(store, options.root / "results", options)
    return _list(store)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m runner.store",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path("outputs"), help="paths.root of the runs")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="every artefact: size, age, what it was made from (default)")
    commands.add_parser("verify", help="check every file; exit 1 if one is damaged")
    prune = commands.add_parser("prune", help="delete artefacts; scratch of killed runs always goes")
    prune.add_argument("--older-than", type=_days, metavar="DAYS", help="unused for at least DAYS days")
    prune.add_argument(
        "--unused", action="store_true", help="no result was made from it, and no run of the last day"
    )
    prune.add_argument("--dry-run", action="store_true", help="name what would go, delete nothing")
    return parser


def _days(text: str) -> float:
    if not float(text) >= 0:
        raise ValueError(text)
    return float(text)


def _list(store: Store) -> int:
    from tabulate import tabulate

    found = store.artefacts()
    lines = [
        (a.stage, a.key, _human(a.size()), f"{age_in_days(a.path):.1f} d", summary(a)) for a in found
    ]
    if lines:
        print(tabulate(lines, headers=["stage", "key", "size", "last used", "made from"]))
    left = len(store.leftovers())
    total = sum(a.size() for a in found)
    killed = f"; {left} leftovers of killed runs: python -m runner.store prune" if left else ""
    print(f"{len(found)} artefacts, {_human(total)} in {store.root}{killed}")
    return 0


def _verify(store: Store) -> int:
    bad = [(a, damage) for a in store.artefacts() if (damage := a.damage()) is not None]
    for artefact, damage in bad:
        print(f"{artefact.path}: {damage}; the next run that needs it makes it again")
    print(f"{len(store.artefacts())} artefacts, {len(bad)} damaged")
    return 1 if bad else 0


def _prune(store: Store, results: Path, options: Any) -> int:
    unwanted = _unwanted(store, results, options)
    doomed = [*store.leftovers(), *(artefact.path for artefact in unwanted)]
    for path in doomed:
        print(f"{'would delete' if options.dry_run else 'deleting'} {path}")
        if not options.dry_run:
            shutil.rmtree(path)
    print(f"{len(doomed)} folders")
    return 0


def _unwanted(store: Store, results: Path, options: Any) -> list[Artefact]:
    """Return the artefacts that meet every given condition, or none if no condition is given.

    An artefact that was used within the last day stays unless an age is given: it may belong to a run
    that has no result yet.
    """
    if options.older_than is None and not options.unused:
        return []
    files = results.glob("*/*.json") if options.unused else []
    used = {f"{stage}/{key}" for file in files for stage, key in _artefacts_of(file)}
    age = 1 if options.older_than is None else options.older_than
    return [
        artefact
        for artefact in store.artefacts()
        if age_in_days(artefact.path) > age and f"{artefact.stage}/{artefact.key}" not in used
    ]


def _artefacts_of(result: Path) -> list[tuple[str, str]]:
    try:
        return [(stage, key) for stage, key in json.loads(result.read_text())["artefacts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{result} is damaged: delete it; until then nothing can be said to be unused"
        ) from error


def summary(artefact: Artefact) -> str:
    """Return the inputs of an artefact in words: the components of its identity, and the seed."""
    try:
        identity = artefact.identity
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
