"""python -m runner method=negative_gradient scenario=whole_class seed=1
python -m runner -m method=finetune,random_labels seed=0,1,2

Pretrain, unlearn, retrain the reference, evaluate, and print a table.
"""

import sys

import hydra
from omegaconf import DictConfig

import conf  # noqa: F401  registers the schema
from runner.arguments import renamed
from runner.errors import exit_with_message
from runner.scales import scaled


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def main(cfg: DictConfig) -> None:
    from runner.sweep import execute  # imports torch, which --help does without

    execute(cfg)


def cli() -> None:
    """Run the console script `unlearn`."""
    sys.argv[1:] = scaled(renamed(sys.argv[1:]))
    with exit_with_message():
        main()


if __name__ == "__main__":
    cli()
