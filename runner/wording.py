"""The messages of Hydra, OmegaConf, YAML and submitit, reworded: what was wrong, and what to write."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from conf import FOLDER
from runner.naming import TITLE

Table = Sequence[tuple[str, str]]

# The cure of what cannot be parsed.
QUOTE = (
    "close brackets and quotes, and quote a value with signs, spaces or letters beyond a to z, as in "
    "\"name='a b'\""
)

# Hydra 1.4 puts the place of an override before what is wrong with it.
PLACE = re.compile(r"Error when parsing index: [^\n]*\n")

# A message as a whole, and the sentence for it, in which `\1` is the first group of the pattern.
SENTENCES: Table = (
    (
        r"Config group override must be",
        "a group takes the name of one of its options: leave the option out, or switch things off with "
        "repair=none, recorder=[], figure=[], evaluation=quick or tracking=off",
    ),
    (
        r".*interpolation '\$\{(?:(?:dataset|model|experiment|scale)\}_\$\{|method\}')",
        "dataset=, model= and method= take the name of one option each, no list, null or ~; a sweep is "
        "-m method=a,b",
    ),
    (
        r"Ambiguous value for argument '([^=]*)=(.*?)'\n",
        r"\1=\2 has several values: write -m \1=\2 for a sweep; an option that is a list is \1=[\2]",
    ),
    (
        r"Error merging override [+]*([^=\n]*)="
        r"(?:\[[^\n]*\nCannot merge (?:DictConfig|incompatible)|[^\n]*\nCannot assign \w+ to Dict)",
        r"\1 holds several options: set them one by one, by their names",
    ),
    (
        r"In '(.*?)': \w*TypeError raised while composing config:\nCannot merge",
        r"\1.yaml sets options where a list must be, or a list where options must be",
    ),
    (
        r"BasicSweeper does not support sweep type",
        "a sweep has no interval(…): write option=a,b, or option='range(1,5)'; runner.tune searches "
        "intervals",
    ),
    (r"Could not append to config. An item is already at '(.*?)'", r"\1 exists: write \1=… without +"),
    (r"Key '(\w+)' not in 'Run'", r"\1 cannot be removed: leave out ~\1"),
    (
        r"Error parsing override '([^\n]*)'\nmissing EQUAL",
        r"cannot read '\1': write option=value, and quote it if it has spaces",
    ),
    (r"Error parsing override '([^\n]*)'\n", rf"cannot read '\1': {QUOTE}"),
    (r"LexerNoViableAltException: ([^\n]*)", rf"cannot read '\1': {QUOTE}"),
    (
        r"(?:no viable alternative at|mismatched) input '([^\n]*?)'(?:$|\n| expecting)",
        rf"cannot read the arguments at '\1': {QUOTE}",
    ),
    (
        r"In '(.*?)': (?:Could not override|Invalid Defaults List override) '/?([\w/@.]+)",
        r"\1.yaml overrides \2, which no defaults choose: remove `override`, or correct the name",
    ),
    (
        r"Multiple values for ([\w/]+)\. To override a value use",
        r"two files of the configuration choose \1: write `override /\1: …` in the defaults of yours",
    ),
    (
        r"Invalid defaults list in '(.*?)'",
        r"\1.yaml: write its defaults as a list, as in defaults: [name]",
    ),
    (r"hydra.searchpath must be a list", "write it as a list: hydra.searchpath=[file:///folder]"),
    (
        r"provider=hydra\.searchpath[^\n]*, path=([^\n]*) is not available",
        r"hydra.searchpath names \1, which is no folder: correct the path, as in [file:///folder]",
    ),
    (r"'utf-8' codec can't decode byte", "a file that must be text is not in UTF-8: save it as UTF-8"),
    # submitit, and Slurm's own programs
    (
        r".*(?:Could not detect \"srun\"|No such file or directory: 'sbatch')",
        "there is no Slurm here: start the sweep on a machine of the cluster, or choose "
        "hydra/launcher=local",
    ),
    (
        r".*?s(?:batch|run): (?:error|fatal): ([^\n]*)",
        r"Slurm refused the jobs (\1): check that `sinfo` reaches the cluster, and the options "
        "hydra.launcher.partition, account and timeout_min",
    ),
    (
        r"Could not make sense of sbatch output",
        "sbatch printed no job number: check that `sinfo` reaches the cluster",
    ),
    (
        r"Job not requeued because: (?:timed-out|preempted)",
        "the job ran into its time limit: the same command goes on from the finished stages; raise "
        "hydra.launcher.timeout_min if one stage takes longer",
    ),
)

# Messages about one option: its name (with the value, if known), and the reason.
SUBJECTS = (
    r"Error merging override [+]*(?P<option>[^\n]*)\n(?P<reason>.*)",
    r"In '(?P<file>[^']*)': \w+ raised while composing config:\n(?P<reason>.*?)\n"
    r"\s+full_key: (?P<option>\S+)",
    r"(?P<reason>.*?)\n\s+full_key: (?P<option>\S+)",
    r"(?P<option>[\w.]+(?:\[\d+\])?): (?P<reason>.*)",
)

# The reason, and what the option must be.
REASONS: Table = (
    (
        r"Value '(\[.*\]|\{.*\})' of type '\w+' could not be converted",
        r"it must be a single number, not \1; a sweep over several numbers is -m option=a,b",
    ),
    (
        r"Value '(.*)' of type '\w+' could not be converted to Integer",
        r"it must be a whole number, not \1",
    ),
    (r"Value '(.*)' of type '\w+' could not be converted to Float", r"it must be a number, not \1"),
    (r"Value '(.*)' is not a valid bool", r"it must be true or false, not \1"),
    (r"Invalid value '(.*)', expected one of \[(.*)\]", r"it must be one of \2, not \1"),
    (r"Cannot convert '\w+' to string: '(.*)'", r"it must be a single word, not \1"),
    (r"Invalid value assigned: \w+ is not a ListConfig", "it must be a list, as in [a,b] or [a]"),
    (r"Cannot merge DictConfig with ListConfig", "it must be a list, as in [a,b] or [a]"),
    (r"Incompatible value 'None'|field '.*' is not Optional", "it needs a value, which null is not"),
    (r"Key '(.*?)' (?:is )?not in", "there is no such option"),
    (r"Interpolation key '(.*)' not found", r"there is no option \1, which ${\1} names"),
    (
        r"KeyError raised while resolving interpolation: \"Environment variable '(.*)' not found",
        r"set the environment variable \1, which it reads",
    ),
)

# Groups of which several options may be chosen → how to choose another.
LISTED = {"recorder": "recorder=[{}]", "figure": "figure=[{}]"}

# Groups of which no option with settings is chosen at first → how to choose one.
UNCHOSEN = {"repair": "repair=epochs", "hydra.launcher": "hydra/launcher=local, slurm or ray"}

# Hydra's own groups, and those whose options are named after the method, data set and model.
CHOSEN_BY_OTHERS = {"hydra", "search", "tuned"}

# Groups whose files begin with a line that says where their options stand → that place.
PACKAGES = {
    "metric": "evaluation.metrics.{}",
    "recorder": "recorder.{}",
    "figure": "figure.{}",
    "search": "tune.space",
}

# The columns of a table are many: a wrong one is answered by so many similar ones, and this command.
NEAREST = 3
ALL = "table.columns=[] lists all"

# Words that people write to choose nothing → how each group is switched off.
NOTHING = {"", "none", "null", "off", "no", "false"}
OFF = {
    "recorder": "recorder=[]",
    "figure": "figure=[]",
    "repair": "repair=none",
    "evaluation": "evaluation=quick",
    "tracking": "tracking=off",
}


def reworded(error: Exception) -> str | None:
    """Return the error's message in this project's words; None if there are none for it."""
    if (mark := getattr(error, "problem_mark", None)) is not None:
        return _yaml(mark, str(getattr(error, "problem", "")))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        return _unknown_choice(error, str(error.missing_cfg_file))
    text, cause = PLACE.sub("", str(error)), error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        if text.startswith("Could not override"):
            return _unknown_option(cause)
        if "is not a subclass of" in str(cause):
            return _several_options(cause)
        text = f"{text}\n{cause}"
    return _matched(SENTENCES, text) or _about_option(text)


def _matched(table: Table, text: str) -> str | None:
    """Return the words of the first pattern that the text matches."""
    for pattern, words in table:
        if found := re.match(pattern, text, re.DOTALL):
            return found.expand(words)
    return None


def _about_option(text: str) -> str | None:
    """Reword a message about the value of one option."""
    for pattern in SUBJECTS:
        if found := re.match(pattern, text, re.DOTALL):
            words = _matched(REASONS, found["reason"])
            file = found.groupdict().get("file")
            group, _, name = (file or "").rpartition("/")
            if found["option"] == group and group in PACKAGES:
                return lacks_package(group, name)
            return words and f"{f'{file}.yaml, ' if file else ''}{found['option']}: {words}"
    return None


def lacks_package(group: str, name: str) -> str:
    """Name the first line that a file lacks whose options stand in another place than its group."""
    line = f"# @package {PACKAGES[group].format(name)}"
    return f"{group}/{name}.yaml does not say where its options stand: begin it with the line {line}"


def _yaml(mark: Any, problem: str) -> str:
    """Name the file and the line at which a YAML file cannot be read."""
    place = f"{mark.name}, line {mark.line + 1}"
    return f"{place} is not valid YAML ({problem}): correct its indent, brackets, quotes or keys"


def _unknown_choice(error: MissingConfigException, path: str) -> str:
    """Name the options of a group of which an unknown one was chosen."""
    text = str(error)
    if not path.count("/"):
        return f"there is no configuration {path}: leave out --config-name"
    listed = re.search(r"Available options in '(.*?)'", text)
    group = listed[1] if listed else path.rpartition("/")[0]
    name = path.removeprefix(f"{group}/")
    options = sorted(option for option in error.options or _options(group, text) if option[0] != "_")
    asked = re.match(r"In '(.*?)'", text)
    file = "" if asked is None or asked[1].endswith("config") else f"{asked[1]}.yaml: "
    off = f", or {OFF[group]} for none" if group in OFF and name.lower() in NOTHING else ""
    unknown = f"{file}there is no {group}={name}{suggestion(name, options)}"
    return f"{unknown}: choose from {', '.join(options)}{off}"


def _options(group: str, text: str) -> set[str]:
    """Return a group's options in the folders of the search path that the text lists."""
    folders = [FOLDER, *(Path(path) for path in re.findall(r"path=file://(\S+)", text))]
    return {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}


def _unknown_option(error: OmegaConfBaseException) -> str:
    """Name the options that stand where an unknown one was set."""
    parent, key = error.parent_node, str(error.full_key)
    assert isinstance(parent, DictConfig)
    group, _, name = key.rpartition(".")
    known = [str(option) for option in parent if str(option)[0] != "_"]
    if group in LISTED:
        return f"{key} is not chosen: choose it first: {LISTED[group].format(','.join([*known, name]))}"
    if group in UNCHOSEN and not known:
        return f"{key} has no meaning yet: choose one first: {UNCHOSEN[group]}"
    if group:
        there = ", ".join(known) or "no options"
        owner = parent.get(TITLE, group)  # in a sweep, the one of several methods
        return f"there is no {key}{suggestion(name, known)}: {owner} has {there}"
    if below := [f"{at}.{name}" for at in known if _holds(parent[at], name)]:
        return f"there is no {key}: did you mean {' or '.join(below)}?"
    groups = {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name[0] != "_"}
    known = sorted({*known, *groups} - CHOSEN_BY_OTHERS)
    return f"there is no {key}{suggestion(name, known)}: there are {', '.join(known)}"


def _holds(node: Any, name: str) -> bool:
    return isinstance(node, DictConfig) and name in node


def _several_options(error: OmegaConfBaseException) -> str:
    """Name the options of a part of the configuration that was set as a whole."""
    assert isinstance(error.parent_node, DictConfig)
    key, part = str(error.full_key), error.parent_node[error.key]
    assert isinstance(part, DictConfig)
    options = [f"{key}.{option!s}" for option in part]
    return f"{key} holds several options: set {' or '.join(options)}"


def suggestion(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return a question that names the most similar of the known names, at most so many, if any is."""
    similar = get_close_matches(name.lower(), known, n=most)
    return f" (did you mean {' or '.join(similar)}?)" if similar else ""
