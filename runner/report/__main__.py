"""python -m runner.report [option=value …]"""

import sys

from runner.errors import exit_with_message
from runner.naming import run_name
from runner.report import show


def main(overrides: list[str]) -> None:
    """Compose the configuration, print the table of its name, and write the table's files."""
    from runner.compose import composed

    cfg, names = composed(overrides)
    show(cfg, run_name(cfg.name, names))


if __name__ == "__main__":
    with exit_with_message():
        main(sys.argv[1:])
