"""python -m runner.report name=digits_small_cnn_whole_class [table.columns=[test_accuracy]]
python -m runner.report papers

Print the table of the stored results of a name, and write it to <paths.root>/tables; of a paper's table,
also a verdict on each number that it prints. With `papers`, count the verdicts on all papers.
"""

from pathlib import Path

from runner.errors import command
from runner.naming import run_name
from runner.report import show

# In the place of a first option: a summary of the verdicts on all printed numbers.
PAPERS = "papers"


def main(arguments: list[str]) -> None:
    """Compose the configuration, print the table of its name, and write the table's files.

    Print the verdicts on the printed table of the name, if there is one.
    """
    from runner.compose import composed
    from runner.papers.text import of_table, summary
    from runner.report.text import TERMINAL

    asked = arguments[:1] == [PAPERS]
    cfg, names = composed(arguments[asked:])
    root = Path(cfg.paths.root)
    if asked:
        print(summary(TERMINAL, root))
        return
    name = run_name(cfg.name, names)
    printed = of_table(TERMINAL, name, root)
    if printed is None or (root / "results" / name).is_dir():
        show(cfg, name)
    if printed is not None:
        print(f"\n{printed}")


if __name__ == "__main__":
    command(main, __doc__)
