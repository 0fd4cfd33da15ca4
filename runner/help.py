"""The page of `python -m runner --help`."""

from collections.abc import Sequence
from textwrap import fill

from runner.compose import options

PAGE = """python -m runner [option=value …]      pretrain, unlearn, retrain references, score: a table
python -m runner -m option=a,b …       a sweep over several values
python -m runner … plan=true           its cells, what is missing, and how long it takes

python -m runner --cfg job             every option of a run, with its value
python -m runner.report name=…         the table of stored runs, and what is missing
python -m runner.report check …        hold a published table against them
python -m runner.figure name=…         their figures
python -m runner.score name=…          score stored runs again, with other metrics
python -m runner.doctor …              what a run costs and what its numbers can tell, before it starts
python -m runner.tune …                search the options of methods
python -m runner.store                 list, verify and prune what is stored; export a model
python -m runner.tracking push name=…  stored results as runs of W&B
python -m runner.dashboard name=…      a workspace and a report of W&B

Each of them takes --help. Choices, as in method=ssd or metric=[accuracy,zrf]:

{choices}

HYDRA_FULL_ERROR=1 shows the traceback of an error. The script `unlearn` is the same program as
`python -m runner`; after eval "$(unlearn --shell-completion install=bash)", Tab completes."""


def page(overrides: Sequence[str]) -> str:
    """Return the commands, and the options of every group."""
    found = options(list(overrides))
    return PAGE.format(choices="\n".join(_group(name, found[name]) for name in sorted(found)))


def _group(name: str, named: Sequence[str]) -> str:
    return fill(f"{name + '=':<17} {', '.join(named)}", 105, subsequent_indent=" " * 18)
