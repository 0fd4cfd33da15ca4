"""python -m runner method=negative_gradient scenario=whole_class seed=1
python -m runner -m method=finetune,random_labels seed=0,1,2

Pretrains, unlearns, retrains the reference, evaluates, and prints a table.
"""

import hydra
from omegaconf import DictConfig

import conf  # noqa: F401  registers the schema
from runner.errors import exit_with_message


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def main(cfg: DictConfig) -> None:
    from runner.sweep import execute

    execute(cfg)


def cli() -> None:
    """The console script `unlearn`."""
    with exit_with_message():
        main()


if __name__ == "__main__":
    cli()
