"""python -m runner.bench [group …] [--json FILE]"""

import argparse
import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from tabulate import tabulate

from runner import bench
from runner.edge import telling


def main(arguments: list[str]) -> None:
    groups = [module.name for module in iter_modules(bench.__path__) if module.name != "__main__"]
    parser = argparse.ArgumentParser(prog="python -m runner.bench", description=bench.__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {groups}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(groups):
        parser.error(f"no group {sorted(unknown)}: choose from {groups}")
    figures = []
    for group in options.groups or groups:
        for figure in import_module(f"runner.bench.{group}").figures():
            figures.append(asdict(figure) | {"ratio": figure.ratio})
            print(f"{group}: {figure.name}: {figure.value:.3g} {figure.unit}", file=sys.stderr)
    print(tabulate(figures, headers="keys", floatfmt=".3g"))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    with telling():
        main(sys.argv[1:])
