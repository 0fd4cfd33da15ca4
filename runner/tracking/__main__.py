"""python -m runner.tracking push name=digits_small_cnn_whole_class [tracking.mode=online] […]

Write the stored results of a name, with their curves, as runs of W&B: offline, or into a project. The
options of tracking are those given here, not those of the commands that made the results.
"""

from omegaconf import OmegaConf

from conf import Mode, Tracking
from data.errors import UserError
from runner.errors import run_command
from runner.naming import folder_of, run_name
from runner.tracking.settings import check_settings, mode_of

PUSH = "push"


def main(arguments: list[str]) -> None:
    """Push the results of a name."""
    if arguments[:1] != [PUSH]:
        raise UserError("write python -m runner.tracking push name=…")
    from runner.reading import composed_for
    from runner.say import say
    from runner.tracking.push import push

    cfg, names = composed_for(arguments[1:], "tracking")
    name = run_name(cfg.name, names)
    if not cfg.tracking.enabled:
        raise UserError("tracking=off writes nothing: leave it out")
    tracking = OmegaConf.to_object(cfg.tracking)
    assert isinstance(tracking, Tracking)
    check_settings(tracking)
    if mode_of(tracking) == Mode.disabled.value:
        raise UserError("the mode is disabled, which writes nothing: set tracking.mode=offline")
    found, written = push(name, folder_of("paths.root", cfg.paths.root), tracking, say)
    print(f"{written} runs of {name} are tracked")
    if written < found:
        raise UserError(
            f"{found - written} of the {found} results of {name} are not tracked, or in part: the lines "
            "above name the cure of each; then push again"
        )


if __name__ == "__main__":
    run_command(main, __doc__)
