"""Scores of a model alone are compared with all retrained models, distances with the others'."""

from dataclasses import replace

import pytest

from metrics.metric import glossary
from metrics.probe import Probe
from metrics.relearning import Relearning
from runner.report import Report
from runner.report.compare import compared, values_of
from runner.results import Line, Result
from tests.test_report import result

PROBES = {0: 0.80, 1: 0.79, 2: 0.81, 3: 0.80}


def run(seed: int, value: float, retrained: dict[int, float], about: dict[str, object]) -> Result:
    """Return one run whose retrained models, by seed, have these scores; its own is that of its seed."""
    made = result("finetune", seed, 0.5)
    others = {str(key): {"scores": {"score": each}} for key, each in retrained.items() if key != seed}
    scores = {"unlearned": {"score": value}, "reference": {"score": retrained[seed]}}
    return replace(made, scores=scores, references=others, about={"score": about})


def test_a_probe_is_compared_with_all_retrained_models() -> None:
    """Its metric holds the features of the retrained model of the seed, and it does not look at them."""
    about = glossary([Probe()], ["probe_accuracy"])["probe_accuracy"]
    runs = [run(seed, value, PROBES, about) for seed, value in enumerate((0.80, 0.81, 0.79))]
    ((_, found),) = compared(values_of(runs)).items()
    # the case of three values and four retrained models that has these numbers
    assert found.difference.n == 3
    assert found.difference.freedom == pytest.approx(3.857142857)
    assert found.difference.half_width(0.90) == pytest.approx(0.015236287)
    assert found.verdict == "matches"
    assert found.retrained.n == 4


def test_equal_scores_are_at_no_difference_whatever_their_sum_rounds_to() -> None:
    """0.1 + 0.1 + 0.1 is not 0.3: without a margin, a difference of 1e-17 would be a verdict."""
    assert sum([0.1] * 3) / 3 != 0.1
    about = {"better": "reference", "remembers": 1, "margin": None, "unit": "share", "null": None}
    runs = [
        run(seed, 0.1, dict.fromkeys(range(seed, seed + 4), 0.1), {**about, "paired": True})
        for seed in range(3)
    ]
    found = compared(values_of(runs))[Line("setting", runs[0].cells["unlearned"]), "score"]
    assert (found.difference.mean, found.difference.error, found.verdict) == (0.0, 0.0, "unclear")


def relearned(seed: int, value: int | None, retrained: dict[int, int | None]) -> Result:
    """Return one run with these batches of relearning; None if the budget ended before."""
    said = glossary([Relearning(0.05)], ["relearn_batches", "relearn_batches_censored"])

    def scores(batches: int | None) -> dict[str, float]:
        return {"relearn_batches_censored": 1.0} if batches is None else {"relearn_batches": batches}

    others = {str(key): {"scores": scores(each)} for key, each in retrained.items() if key != seed}
    own = {"unlearned": scores(value), "reference": scores(retrained[seed])}
    return replace(result("finetune", seed, 0.5), scores=own, references=others, about=said)


def test_models_that_relearned_within_the_budget_give_no_verdict_on_those_that_did_not() -> None:
    """Of the retrained models that got there, 10 to 12 batches are the rule: 20 look like too many."""
    batches = {0: 10, 1: 12, 2: 11, 3: 11}
    known = [relearned(seed, 20, batches) for seed in range(3)]
    line = Line("setting", known[0].cells["unlearned"])
    found = compared(values_of(known))[line, "relearn_batches"]
    assert found.verdict == "over-forgets"
    ended = {**batches, **dict.fromkeys(range(4, 8))}
    results = [relearned(seed, 20, ended) for seed in range(3)]
    assert (line, "relearn_batches") not in compared(values_of(results))
    assert "training of some models of retrain ended" in Report(results, ["relearn_batches"]).terminal()
    partly = [*known[:2], relearned(2, None, batches)]
    assert (line, "relearn_batches") not in compared(values_of(partly))
    assert "training of some models of finetune" in Report(partly, ["relearn_batches"]).terminal()
