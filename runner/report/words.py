"""People's words for what a table or a figure shows: methods and other choices, options, and scores.

A terminal and a CSV show identifiers, which one types as `method=` or `table.columns=`. Everything else
shows these words: Markdown, LaTeX, HTML, figures and dashboards.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from conf import FOLDER
from data.meanings import ROWS, meaning, on_rows
from runner.naming import TITLE
from runner.results import Line, Result

# An option by the last part of its name, and its words; `{share}` is the value in percent.
PHRASES = {
    "ascent_epochs": "{value} epochs of ascent",
    "batch_size": "batches of {value}",
    "budget": "budget of {value} gradient examples",
    "ce_weight": "cross-entropy weight {value}",
    "classes": "classes {value}",
    "count": "{value} rows",
    "dtype": "{value}",
    "epochs": "{value} epochs",
    "fraction": "{share} of the rows",
    "keep": "{share} kept",
    "keep_first": "{share} of the first layer kept",
    "keep_last": "{share} of the last layer kept",
    "kl_weight": "KL weight {value}",
    "known": "{share} known",
    "limit": "{value} rows per class",
    "lr": "learning rate {value}",
    "optimizer": "{value}",
    "precision": "{value}",
    "schedule": "{value} schedule",
}

# Groups of options that are not the method's own, and the words that say so.
ELSEWHERE = {"training": "in training", "repair": "in the repair"}

# Costs and logged values whose name does not say enough.
VALUES = {
    "lr": "learning rate",
    "peak_bytes": "peak memory (bytes)",
    "record_bytes": "record (bytes)",
    "record_seconds": "recording (seconds)",
}


class Names(NamedTuple):
    """The names by which the remarks below a table call things: identifiers, or people's words.

    `lines` are those of the table, `retrained` stands for the retrained models, `score` names a score,
    and `option` the option of a group.
    """

    lines: Mapping[Line, str]
    retrained: str
    score: Callable[[str], str]
    option: Callable[[str, str], str]


def choice(result: Result, group: str) -> str:
    """Return the title of the option that a run chose of a group, such as "MNIST" or "random labels".

    It is the one that the run's result holds, or else the one in the option's file: results of earlier
    versions hold none. Without either, it is the option's name. The title of a method is that of its
    variant, if one was chosen and has one.
    """
    if group in result.titles:
        return result.titles[group]
    name = result.names[group]
    own = option(group, name)
    return (
        variant(result.names["variant"], own) if group == "method" and "variant" in result.names else own
    )


def option(group: str, name: str) -> str:
    """Return the title of the option of a group, or else its name in words."""
    return str(_file(group, name).get(TITLE, spaced(name)))


def variant(name: str, method: str) -> str:
    """Return the title of a variant, which is `method` if its file has none."""
    return str((_file("variant", name).get("method") or {}).get(TITLE, method))


def setting(chosen: str, value: Any) -> str:
    """Return an option and its value, as in "learning rate 0.1" or "10 % kept"."""
    name = chosen.split(".")[-1]
    if isinstance(value, bool):
        text = spaced(name) if value else f"no {spaced(name)}"
    else:
        share = f"{100 * value:g} %" if isinstance(value, int | float) else value
        phrase = PHRASES.get(name, f"{spaced(name)} {{value}}")
        text = phrase.format(value=listed(value), share=share)
        text = re.sub(r"^1 (\w+)s\b", r"1 \1", text)  # 1 row, 2 rows
    return _elsewhere(chosen, text)


def axis(chosen: str) -> str:
    """Return an option as an axis is named, as in "learning rate" or "share kept"."""
    name = chosen.split(".")[-1]
    words = PHRASES.get(name, "").format(value="", share="share").split()
    # "batches of" and an empty phrase say nothing without a value
    text = " ".join(words) if words and words[-1] != "of" else spaced(name)
    return _elsewhere(chosen, text)


def _elsewhere(chosen: str, text: str) -> str:
    """Return the words for an option with those for the part of the run that it is about."""
    groups = chosen.split(".")[:-1]
    return " ".join([text, *(words for group, words in ELSEWHERE.items() if group in groups)])


def listed(value: Any) -> str:
    """Return a value as text, a list with commas."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def score(name: str, about: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the title of a score, a cost or a logged value, such as "accuracy on test rows".

    `about` is what results say of their scores. If it has no title, the name is put into words.
    """
    title = str((meaning(name, about) or {}).get("title", ""))
    if title:
        number = re.search(r"(?<=_)\d+(?=_|$)", name)
        return title if number is None else title.replace("<k>", number[0])
    for part in sorted(ROWS, key=len, reverse=True):
        if name.startswith(f"{part}_"):
            return on_rows(spaced(name.removeprefix(f"{part}_")), part)
    return VALUES.get(name, spaced(name))


def spaced(name: str) -> str:
    """Return an identifier as words."""
    return name.replace("_", " ")


@cache
def _file(group: str, name: str) -> dict[str, Any]:
    """Return the file of an option as it is written; empty if it has none of ours."""
    path = FOLDER / group / f"{name}.yaml"
    if not path.is_file():
        return {}
    found = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
