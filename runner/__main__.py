"""python -m runner method=negative_gradient scenario=whole_class seed=1
python -m runner -m method=finetune,random_labels seed=0,1,2

Pretrain, unlearn, retrain the reference, evaluate, and print a table.
"""

import sys

import hydra
from omegaconf import DictConfig

import conf  # noqa: F401  registers the schema
from runner.arguments import HELP, arranged, asks_for_a_plan
from runner.compose import BASE, trusting
from runner.errors import exit_with_message
from runner.torchrun import several


@hydra.main(**BASE, config_path="pkg://conf", config_name="config")
def main(cfg: DictConfig) -> None:
    from runner.sweep import execute  # imports torch, which --help does without

    execute(cfg)


def cli() -> None:
    """Run the console script `unlearn`."""
    with exit_with_message():
        if not several():
            _answer()
            return
        from runner.processes import TEAM  # imports torch, which --help does without

        with TEAM.gathered() as leads:
            if leads:
                _answer()


def _answer() -> None:
    """Print the help or the listing that the arguments ask for, or run what they say."""
    if set(HELP) & set(sys.argv):
        from runner.help import page

        print(page([argument for argument in sys.argv[1:] if argument[:1] != "-"]))
        return
    sys.argv[1:] = arranged(sys.argv[1:])
    with trusting(sys.argv[1:]):
        if not asks_for_a_plan(sys.argv[1:]):
            main()
            return
        from runner.state.listing import listing  # imports torch, which --help does without

        print(listing(sys.argv[1:]))


if __name__ == "__main__":
    cli()
