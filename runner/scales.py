"""Scales: the changes that `scale=` makes for one preset, as an argument that chooses their file.

A file that an interpolation chooses may set options, but Hydra lets it choose no data set or model. So
an argument of its own chooses the file of a preset and a scale.
"""

from collections.abc import Sequence

import conf

# The group of the files, <preset>/<scale>.yaml.
GROUP = "scale/experiment"
FILES = conf.FOLDER / GROUP


def scaled(arguments: Sequence[str]) -> list[str]:
    """Return the arguments, with the file of their preset and scale chosen if there is one."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    choice = f"{given.get('experiment')}/{given.get('scale')}"
    if GROUP in given or not (FILES / f"{choice}.yaml").is_file():
        return list(arguments)
    return [*arguments, f"{GROUP}={choice}"]
