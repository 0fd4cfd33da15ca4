"""python -m runner.report name=digits_small_cnn_whole_class [table.columns=[test_accuracy]]
python -m runner.report papers
python -m runner.report check results/paper004_table1 [name=…] [paths.root=…]

Print the table of the stored results of a name, and write it to <paths.root>/tables; of a paper's table,
also a verdict on each number that it prints; then how far the sweeps of the name have come, and the
command for what is left. With `papers`, count the verdicts on all papers.

With `check`, hold a published table against the stored results: which numbers agree digit for digit,
which differ and by how much, which are missing, and the commands that make them. Exit with 1 unless all
agree.
"""

import sys
from pathlib import Path

from data.errors import UserError
from runner.errors import run_command
from runner.naming import folder_of, run_name
from runner.report import show

# Words among the options: a summary of the verdicts on all printed numbers; hold a published
# table against the results.
PAPERS, CHECK = "papers", "check"


def main(arguments: list[str]) -> None:
    """Print and write the table of a name, its verdicts and its progress; or do what a word asks for."""
    words = [each for each in arguments if "=" not in each]
    overrides = [each for each in arguments if "=" in each]
    if words[:1] == [CHECK]:
        _check(words[1:], overrides)
    elif words == [PAPERS]:
        _papers(overrides)
    else:
        _table(arguments)


def _table(overrides: list[str]) -> None:
    """Print and write the table of a name; print the verdicts on its printed table, if there is one, and
    how far its sweeps have come."""
    from runner.papers.text import how_to_run, of_table
    from runner.reading import FIGURES, TABLE, composed_for
    from runner.report.text import TERMINAL
    from runner.results import Results
    from runner.state.progress import export, progress

    shown = FIGURES if "format=html" in overrides else ()
    cfg, names = composed_for(overrides, *TABLE, *shown)
    name, root = run_name(cfg.name, names), folder_of("paths.root", cfg.paths.root)
    printed, done = of_table(TERMINAL, name, root), progress(root, name)
    stored = Results(root / "results").has(name)
    if stored or (printed is None and not done.cells):
        show(cfg, name)
    if printed is not None:
        print(f"\n{printed}")
        if not stored:
            print(
                f"\nno file is written, since {root / 'results'} holds no run of {name}: make some with "
                f"`{how_to_run(name)}`, or set another paths.root=…"
            )
    if done.cells:
        print(f"the commands, the environment and the cells: {export(root, name)}\n\n{done.text()}")


def _papers(overrides: list[str]) -> None:
    from runner.papers.text import summary
    from runner.reading import composed_for
    from runner.report.text import TERMINAL

    cfg, _ = composed_for(overrides)
    print(summary(TERMINAL, folder_of("paths.root", cfg.paths.root)))


def _check(tables: list[str], overrides: list[str]) -> None:
    if len(tables) != 1:
        raise UserError("check takes a published table: python -m runner.report check results/<name>")
    from runner.reading import composed_for
    from runner.state.check import check

    cfg, names = composed_for(overrides)
    name = cfg.name and run_name(cfg.name, names)
    checked = check(Path(tables[0]), folder_of("paths.root", cfg.paths.root), name)
    print(checked.text())
    if not checked.holds:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, __doc__)
