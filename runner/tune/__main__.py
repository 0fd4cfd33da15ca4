"""python -m runner.tune [option=value …] tune.validation={option:value}

Search the options of every method of the command, and write the best to conf/tuned.
"""

from data.errors import UserError
from runner.errors import run_command


def main(overrides: list[str]) -> None:
    """Tune every method of the command, and print the path of every file written.

    A failed search is told, and the others go on. Raise UserError before the first training if one of
    them cannot be made, and at the end if one failed.
    """
    from runner.say import say
    from runner.tune.file import taken_up, write
    from runner.tune.subjects import searches

    failed, wanted = 0, searches(overrides)
    for search in wanted:
        try:
            print(write(search, search.trials(), overrides))
        except UserError as error:
            failed += 1
            say(f"failed: {search.path}: {error}")
    if failed < len(wanted):
        say(f"runs take the options of these files with {taken_up(wanted[0].path)}")
    if failed:
        raise UserError(f"{failed} searches failed, as told above")


if __name__ == "__main__":
    run_command(main, __doc__)
