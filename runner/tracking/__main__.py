"""python -m runner.tracking push name=digits_small_cnn_whole_class [tracking.mode=online] […]

Write the stored results of a name, with their curves, as runs of W&B: offline, or into a project.
"""

from conf import Mode
from data.errors import UserError
from runner.errors import command
from runner.naming import folder_of, run_name
from runner.tracking.settings import mode_of

PUSH, PREFIX = "push", "tracking"


def main(arguments: list[str]) -> None:
    """Push the results of a name."""
    if arguments[:1] != [PUSH]:
        raise UserError("write python -m runner.tracking push name=…")
    from runner.compose import composed
    from runner.say import say
    from runner.tracking.push import push

    cfg, names = composed(arguments[1:])
    name = run_name(cfg.name, names)
    if not cfg.tracking.enabled:
        raise UserError("tracking=off writes nothing: leave it out")
    if mode_of(cfg.tracking) == Mode.disabled.value:
        raise UserError("the mode is disabled, which writes nothing: set tracking.mode=offline")
    options = ["tracking=wandb", *(text for text in arguments if text.startswith(f"{PREFIX}."))]
    pushed = push(name, folder_of("paths.root", cfg.paths.root), options, say)
    print(f"{pushed} runs of {name} are tracked")


if __name__ == "__main__":
    command(main, __doc__)
