"""Numbers by seed: the values behind the means of a table."""

from collections.abc import Mapping

from runner.results import Line, Result, models
from runner.roles import REFERENCE


def by_seed(results: list[Result], labels: Mapping[Line, str]) -> str:
    """Return a CSV with one line per model and seed: its label, role, seed and the key of a result that
    holds it, then every score and cost, and `gap_<score>` to the retrained model of the same run.

    A model that several results share comes once.
    """
    import pandas as pd

    found: dict[tuple[Line, int | None], dict[str, object]] = {}
    for line, result, role in models(results):
        scores = result.scores[role.name]
        reference = result.scores.get(REFERENCE.name, {})
        gaps = {f"gap_{name}": scores[name] - reference[name] for name in scores if name in reference}
        own = {"line": labels[line], "role": role.name, "seed": result.seed, "key": result.key}
        found.setdefault((line, result.seed), {**own, **scores, **result.costs[role.name], **gaps})
    ordered = sorted(found.values(), key=lambda entry: (str(entry["line"]), entry["seed"] or 0))
    return str(pd.DataFrame(ordered).to_csv(index=False))
