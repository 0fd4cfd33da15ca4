"""python -m runner.report name=digits_small_cnn_whole_class [table.columns=[test_accuracy]]

Print the table of the stored results of a name, and write it to <paths.root>/tables.
"""

from runner.errors import command
from runner.naming import run_name
from runner.report import show


def main(overrides: list[str]) -> None:
    """Compose the configuration, print the table of its name, and write the table's files."""
    from runner.compose import composed

    cfg, names = composed(overrides)
    show(cfg, run_name(cfg.name, names))


if __name__ == "__main__":
    command(main, __doc__)
