"""The scores that every attack reports, and their meanings."""

from torch import Tensor

from metrics.metric import Better, Metric, Score
from metrics.statistics.roc import auc, auc_error, tpr

# The false positive rates, each one in so many others, by the name of the true positive rate there.
RATES = {"tpr_1": 100, "tpr_01": 1000}


class HeldOutAttack(Metric):
    """A metric that ranks the forgotten training rows against held-out rows of their kind, and reports
    both (see `report`)."""

    def others(self, heldout: int, whole_classes: bool) -> int:
        """Return the number of rows, of so many held-out ones, that members are ranked against; 0 if the
        attack is not defined. `whole_classes` is true if no row of their classes is retained."""
        return heldout


def report(attack: str, members: Tensor, others: Tensor) -> dict[str, float]:
    """Return `<attack>_auc`, `_auc_se`, and `_tpr_1` and `_tpr_01` with `_low` and `_high`.

    `members` (m,) and `others` (n,) are scores, high for members. What is not defined is left out: all
    of it if a score is NaN.
    """
    if members.isnan().any() or others.isnan().any():
        return {}
    found = {"auc": auc(members, others), "auc_se": auc_error(members, others)}
    found |= rates(members, others)
    return {f"{attack}_{name}": value for name, value in found.items() if value is not None}


def rates(members: Tensor, others: Tensor) -> dict[str, float]:
    """Return those true positive rates of `RATES` that the others resolve, and their intervals."""
    found: dict[str, float] = {}
    for name, one_in in RATES.items():
        rate = tpr(members, others, one_in)
        if rate is not None:
            found |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
    return found


def meanings(attack: str, words: str) -> dict[str, Score]:
    """Return the meanings of an attack's report; `words` completes "the attack by …"."""
    return {
        f"{attack}_auc": Score(
            f"Chance that the attack by {words} ranks a forgotten training row above a held-out row.",
            Better.reference,
            remembers=1,
            margin=0.03,
            title=f"attack by {words} (AUC)",
        ),
        f"{attack}_auc_se": Score(
            f"Standard error of {attack}_auc over the rows.",
            Better.reference,
            title=f"standard error of the attack by {words}",
        ),
        **rate_meanings(attack, words),
    }


def audit_meanings(attack: str, name: str, auc: str, rate: str) -> dict[str, Score]:
    """Return the meanings of the scores of `likelihood_ratio.attack_scores`, beside their nulls.

    `name` is the attack's in titles, `auc` is the sentence of its area, and `rate` the one of its true
    positive rates, with {} for the false positives in percent.
    """
    found = {
        f"{attack}_auc": Score(
            auc, Better.reference, remembers=1, margin=0.03, null=0.5, title=f"{name} attack (AUC)"
        )
    }
    for key, one_in in RATES.items():
        percent = f"{100 / one_in:g}"
        found[f"{attack}_{key}"] = Score(
            rate.format(percent),
            Better.reference,
            remembers=1,
            null=1 / one_in,
            title=f"found by {name} at {percent} % false alarms",
        )
    return found


def rate_meanings(attack: str, words: str) -> dict[str, Score]:
    """Return the meanings of an attack's true positive rates.

    They have no margin: 0.05, that of other shares, is a multiple of what chance gives.
    """
    found = {}
    for name, one_in in RATES.items():
        says = f"Share of the forgotten rows that the attack by {words} finds"
        at = f"while it takes at most one in {one_in:,} held-out rows for members"
        title = f"found by {words} at {100 / one_in:g} % false alarms"
        found[f"{attack}_{name}"] = Score(f"{says}, {at}.", Better.reference, remembers=1, title=title)
        for end in ("low", "high"):
            says = f"The {end} end of the 95 % interval of {attack}_{name}."
            found[f"{attack}_{name}_{end}"] = Score(says, Better.reference, title=f"{title}, {end} end")
    return found
