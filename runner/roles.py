"""Roles: the models that one run makes, scores and compares.

A role is defined here once. The stages, the results, the tracker, the tables and the figures read it.
"""

from dataclasses import dataclass

# Options of the run's own method. Runs that differ only in these share their original and reference.
OF_METHOD = ("method.", "repair.", "recorder.", "budget")


@dataclass(frozen=True)
class Role:
    """The part that a model plays in a run."""

    name: str
    """The key of its scores, costs and weights in a result."""

    stage: str
    """The stage of the store that makes the model."""

    curves: str
    """The group of its curves in W&B, and its name in messages."""

    label: str
    """Its line in a table. `{name}` stands for the name of the method or variant. The label of a shared
    role is also the name of the method that makes the same model again."""

    shared: bool
    """True if all runs of one setting have the same model, so that a table has one line for it."""

    place: int
    """Its place in a table. Lines of one place are sorted by their closeness to retraining."""

    ignores: tuple[str, ...]
    """Prefixes of the options that do not change the model, and so do not distinguish its lines."""

    stroke: str = "-"
    """The stroke of a shared role's line in a figure, for matplotlib. Other lines differ in colour."""

    title: str = ""
    """Its line in people's words, where they are not the label's; read `words`."""

    @property
    def words(self) -> str:
        """Its line in people's words."""
        return self.title or self.label

    def depends_on(self, option: str) -> bool:
        """Return whether an option, such as `method.lr`, can change the model."""
        return not option.startswith(self.ignores)


ORIGINAL = Role("original", "pretrain", "pretrain", "original", True, 0, OF_METHOD, ":")
INITIAL = Role("before", "before", "before", "{name}, before the request", False, 2, ("repair.",))
UNLEARNED = Role("unlearned", "unlearn", "unlearn", "{name}", False, 2, ("repair.",))
REPAIRED = Role("repaired", "repair", "repair", "{name}, repaired", False, 2, ())
REFERENCE = Role("reference", "unlearn", "reference", "retrain", True, 1, OF_METHOD, "--", "retrained")

# In the order in which a run makes them.
ROLES = (ORIGINAL, INITIAL, UNLEARNED, REPAIRED, REFERENCE)

ROLE = {role.name: role for role in ROLES}
