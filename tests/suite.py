"""The suite as a whole: how many processes it has, what they share, and what begins first."""

import os
from collections.abc import Iterator
from tempfile import TemporaryDirectory

import pytest

from tests.composing import FOLDER


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Iterator[None]:
    """Return one process more than there are cores: tests of launchers wait most of their time."""
    number = yield
    return number + 1


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of what the processes of a suite compose; they inherit the variable."""
    if not hasattr(config, "workerinput"):
        folder = TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
        os.environ[FOLDER] = folder.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the sweeps on Slurm: they take longest, and would go on alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("cluster") is None)
