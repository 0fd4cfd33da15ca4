"""Whatever is typed, a command line is accepted or ends in one sentence. Nothing is trained here."""

from functools import cache

from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from runner.arguments import arranged
from runner.compose import composed, options, planned
from runner.errors import message_of

VALUES = (
    "0", "-1", "1", "1.5", "0.5", "1e9", "1e400", "100000", "99999999999999999999",
    "-99999999999999999999", "nan", "inf", "-inf", "[]", "[3]", "[-1]", "[0.5,1]", "[[1]]",
    "[99999999999999999999]", "{a:1}", "null", "true", "x", "''", "'a b'", "ünï", "a=b", "[a", "(a)",
    "../x", "${seed}", "${nope}", "0,1", "a" * 300,
)  # fmt: skip

# Options of one of each kind of component.
CHOSEN = [
    "method=scrub", "scenario=random", "recorder=[per_sample]", "repair=epochs", "figure=[curves,cam]"
]  # fmt: skip

FLAGS = ("--nope", "-x", "--cfg", "-m", "--multirun", "--info")


def leaves(node: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted names of the options below a node."""
    found: list[str] = []
    for name in map(str, node):
        value = node._get_node(name)
        below = leaves(value, f"{prefix}{name}.") if isinstance(value, DictConfig) else []
        found += below or [f"{prefix}{name}"]
    return found


@cache
def names() -> tuple[list[str], dict[str, list[str]]]:
    """Return the options of a run, and the groups with their choices."""
    cfg, _ = composed(CHOSEN)
    groups = {group: found for group, found in options([]).items() if "/" not in group}
    return [name for name in leaves(cfg) if not name.endswith("_target_")], groups


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    """One to three options, some misspelt, with values that fit and that do not."""
    known, groups = names()
    found = []
    for _ in range(draw(st.integers(1, 3))):
        group = draw(st.sampled_from(sorted(groups)))
        option = draw(st.sampled_from([draw(st.sampled_from(known)), group]))
        value = draw(st.sampled_from([*VALUES, draw(st.sampled_from(groups[group]))]))
        cut = draw(st.sampled_from([0, 0, 0, 1]))
        sign = draw(st.sampled_from(["", "", "", "+", "++", "~"]))
        found.append(f"{sign}{option[: len(option) - cut]}={value}")
    return [*found, *draw(st.sampled_from([[], [], [], [draw(st.sampled_from(FLAGS))]]))]


def ends_well(line: list[str]) -> str | None:
    """Compose and check a command line. Return the sentence that refuses it, or None."""
    try:
        given = [argument for argument in arranged(line) if argument[:1] != "-"]
        cfg, chosen = composed(given)
        planned(cfg, chosen, given)
    except Exception as error:
        text = message_of(error)
        if text is None:
            raise
        assert "\n" not in text.strip() and text.strip(), text
        return text
    return None


@settings(max_examples=120, deadline=None, derandomize=True)
@given(line=arguments())
@example(line=["repair=[3]"])
@example(line=["method=[3]"])
@example(line=["threads=100000"])
@example(line=["dataset.crop=100000"])
def test_every_command_line_is_accepted_or_refused_in_one_sentence(line: list[str]) -> None:
    ends_well(line)
