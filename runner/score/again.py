"""Scoring again: stored results get the scores of other metrics, without a model and without data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from metrics.evidence import Needs
from metrics.metric import Metric, Scores, glossary, matrices, needs_of, numbers, scored
from runner.joining import lost
from runner.results import Result, Results
from runner.roles import REFERENCE, UNLEARNED, Role
from runner.score.evidence import Model, ScoredModels, evidence_of, without_scores
from runner.score.stored import Shelf, StoredPieces
from runner.store import Store

# The scores of models that several results share, by all that they depend on.
Shared = dict[tuple[object, ...], Scores]


class Again:
    """Scores stored results with metrics, which the overrides `given` choose.

    `say` receives what could not be scored, and why.
    """

    def __init__(
        self,
        store: Store,
        results: Results,
        metrics: Sequence[Metric],
        say: Callable[[str], None],
        given: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.results = results
        self.given = given
        self.metrics = [metric for metric in metrics if not metric.of_a_cell]
        self.of_cells = [metric for metric in metrics if metric.of_a_cell]
        self.say = say
        self.lacking: dict[str, int] = {}
        self._identities: dict[str, object] = {}
        self._shelf: Shelf = {}
        self._shared: Shared = {}

    def score(self, result: Result) -> bool:
        """Write a result with the scores of the metrics added to it. Return whether all had evidence."""
        pieces = StoredPieces(self.store, result, self._identities, self._shelf)
        complete = self._note_what_is_lacking(pieces)
        each = {model: self._scores(pieces, model) for model in pieces.models}
        found = ScoredModels(
            {model: scores for model, scores in each.items() if isinstance(model, Role)},
            {model: scores for model, scores in each.items() if not isinstance(model, Role)},
            {},
        )
        again = self._scored_again(result, found)
        again.undefined = without_scores(self.metrics, pieces, found)
        if lost(again, result):
            again.also = [*result.also, self.command(result)]
        self.results.write(again, {role.name: matrices(scores) for role, scores in found.roles.items()})
        return complete

    def _scored_again(self, result: Result, found: ScoredModels) -> Result:
        """Return a result with these scores in place of its own."""
        references = {
            seed: {**each, "scores": _in_place(each["scores"], found.references[int(seed)])}
            for seed, each in result.references.items()
        }
        plain = {role.name: numbers(scores) for role, scores in found.roles.items()}
        about = glossary(self.metrics, {name for scores in plain.values() for name in scores})
        return replace(
            result, scores=plain, references=references, about=about, not_finite=found.not_finite
        )

    def command(self, result: Result) -> list[str]:
        """Return the overrides of the run that makes a result with the scores of the metrics."""
        return [*(each for each in result.overrides if each not in self.given), *self.given]

    def report(self) -> None:
        """Say which metrics lacked evidence, and in how many results."""
        for name, count in sorted(self.lacking.items()):
            where = "1 result" if count == 1 else f"{count} results"
            self.say(f"{name} in {where}: skipped; --train makes it")

    def _scores(self, pieces: StoredPieces, model: Model) -> Scores:
        """Return the scores of a model. A model that several results share is scored once."""
        request = pieces.request
        read, others = frozenset(pieces.sources(model)), frozenset(pieces.compared)
        costs = [pieces.costs(each) or {} for each in (model, REFERENCE)]
        spent = tuple(tuple(sorted(each.items())) for each in costs)
        key = (model, pieces.models[model], request and request.key, read, others, spent)
        if key not in self._shared:
            evidence = evidence_of(pieces, model, needs_of(self.metrics))
            self._shared[key] = scored(self.metrics, evidence)
        return self._shared[key]

    def _note_what_is_lacking(self, pieces: StoredPieces) -> bool:
        evidence = evidence_of(pieces, UNLEARNED, needs_of(self.metrics))
        lacking = [(metric, evidence.lacks(metric.needs)) for metric in self.metrics]
        lacking += [(metric, metric.needs) for metric in self.of_cells]
        for metric, needs in lacking:
            for need in needs:
                name = f"{metric.option} has no {_words(need)}"
                self.lacking[name] = self.lacking.get(name, 0) + 1
        return not any(needs for _, needs in lacking)


def _in_place(earlier: Mapping[str, float], found: Scores) -> dict[str, float]:
    """Return the earlier scores with those found in place of them, or none where that is not finite."""
    kept = {name: value for name, value in earlier.items() if name not in found}
    return {**kept, **numbers(found)}


def _words(need: Needs) -> str:
    return str(need.name).lower()
