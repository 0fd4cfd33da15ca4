"""Options of the commands that read stored results: one that such a command does not read is refused.

It would look like a filter, as `scenario=random` beside a name whose results have several scenarios.
"""

from omegaconf import DictConfig

from data.errors import UserError
from runner.compose import composed

# Options that choose the results, and groups that name them where no name is given.
CHOOSING, NAMING = ("name", "experiment", "scale", "paths.root"), ("dataset", "model", "scenario")

# Options of a table and of figures; the classes of a data set have names, which figures show.
TABLE, FIGURES = ("table", "format"), ("figure", "dataset")


def composed_for(overrides: list[str], *reads: str) -> tuple[DictConfig, dict[str, str]]:
    """Return what `runner.compose.composed` does, for a command on results that reads these options.

    Raise UserError for an option that has no effect on it.
    """
    cfg, names = composed(overrides)
    known = [*CHOOSING, *(() if cfg.name else NAMING), *reads]
    for text in overrides:
        option = text.lstrip("+~").partition("=")[0]
        if option not in known and not option.startswith(
            tuple(f"{each}." for each in (*reads, "hydra"))
        ):
            raise UserError(
                f"nothing reads {text} here: name=… chooses results as a whole, and this command takes "
                f"{', '.join(dict.fromkeys(known))}; leave it out"
            )
    return cfg, names
