"""Searches: the trials of one method on a validation request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from conf import Tune, Until
from data.component import plain
from data.errors import UserError
from data.meanings import meaning
from methods.training.divergence import Diverged
from metrics.metric import Better, Metric
from runner.compose import composed
from runner.launch.stored import stands
from runner.pipeline import run
from runner.plan import Plan
from runner.report.absent import NOT_FINITE
from runner.results import Result, Results
from runner.roles import UNLEARNED
from runner.say import say
from runner.tune.space import Values, overrides_of, rounded

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Direction = Literal["minimize", "maximize"]

# Optuna's words for the directions of a score.
DIRECTIONS: dict[Better, Direction] = {Better.lower: "minimize", Better.higher: "maximize"}


class NotFinite(UserError):
    """The objective of a run is no finite number."""


@dataclass(frozen=True)
class Trial:
    """A point that was tried, and its objective; None if a run has none, for the reason in `failure`."""

    values: Values
    score: float | None
    failure: str = ""


@dataclass(frozen=True)
class Search:
    """The search for a method's options.

    `path` is the file that it fills. `overrides` are those of a trial, but for its seed and the options
    that it varies. `plan` is that of the first trial and seed, which has the method's own options.
    `direction` is that of the objective.
    """

    path: Path
    overrides: list[str]
    plan: Plan
    tune: Tune
    space: "Mapping[str, BaseDistribution]"
    direction: Direction

    @property
    def own(self) -> Values:
        """The method's own values of the options that the search varies."""
        return {name: plain(getattr(self.plan.method, name)) for name in self.space}

    def plan_of(self, seed: int, values: Mapping[str, Any]) -> Plan:
        """Return the plan of a trial's run."""
        return Plan.of(*composed(self._overrides(seed, values)))

    def trials(self) -> list[Trial]:
        """Return all trials, in order, running those that are not stored. The first has the method's own
        options, and Optuna's TPE sampler proposes the others.

        The sampler is seeded, so that it proposes the same points whenever the search is made again.
        """
        import optuna
        from optuna.trial import TrialState

        for seed in self.tune.seeds:  # an original that diverges would fail every trial anew
            run(replace(self.plan_of(seed, {}), until=Until.pretrain))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self.tune.sampler_seed)
        study = optuna.create_study(direction=self.direction, sampler=sampler)
        study.enqueue_trial(self.own)
        found = []
        for number in range(self.tune.trials):
            asked = study.ask(dict(self.space))
            trial = self._tried(rounded(asked.params) if number else self.own)
            failed = trial.score is None
            study.tell(asked, trial.score, TrialState.FAIL if failed else TrialState.COMPLETE)
            outcome = (
                f"failed, {trial.failure}" if failed else f"{self.tune.objective} {trial.score:.4g}"
            )
            say(f"{self.path.stem} {number + 1}/{self.tune.trials}: {outcome}, at {trial.values}")
            found.append(trial)
        return found

    def _tried(self, values: Values) -> Trial:
        """Run a trial for every seed."""
        try:
            return Trial(values, fmean(self._score(seed, values) for seed in self.tune.seeds))
        except (Diverged, NotFinite) as error:
            return Trial(values, None, str(error))

    def _score(self, seed: int, values: Values) -> float:
        """Return the objective of a run. Raise NotFinite if it is no finite number, and Diverged if the
        run diverges, or did so before with this code and device."""
        plan = self.plan_of(seed, values)
        earlier = Results(plan.root / "results").find(plan.name, plan.key)
        if (
            earlier is not None
            and earlier.status == "diverged"
            and stands(earlier, plan.device, plan.threads)
        ):
            raise Diverged(str(earlier.error))
        result = run(plan, self._overrides(seed, values))
        assert result is not None  # a trial runs to its end
        scores = result.scores[UNLEARNED.name]
        if self.tune.objective not in scores:
            raise self._lacking(result)
        return scores[self.tune.objective]

    def _lacking(self, result: Result) -> UserError:
        """Return the error of a result that has no objective, with the reason."""
        name, metrics = self.tune.objective, self.plan.metrics
        if name in result.not_finite.get(UNLEARNED.name, ()):
            return NotFinite(
                f"{name} has no value: {NOT_FINITE}: choose another tune.objective, or narrow tune.space"
            )
        own = {metric.option for metric in metrics if meaning(name, metric.about()) is not None}
        if reasons := [reason for option, reason in result.undefined.items() if option in own]:
            cure = "choose another tune.objective, or another tune.validation"
            return UserError(f"{name} has no score: {reasons[0]}: {cure}")
        return UserError(
            f"result {result.name}/{result.key} has no {name}: choose evaluation=standard, which gives "
            "all scores their evidence, or another tune.objective"
        )

    def _overrides(self, seed: int, values: Mapping[str, Any]) -> list[str]:
        return [*self.overrides, f"seed={seed}", *overrides_of(values)]


def direction_of(metrics: Sequence[Metric], objective: str) -> Direction:
    """Return the direction of a score. Raise UserError if none of the metrics says that it has one."""
    for metric in metrics:
        score = meaning(objective, metric.about())
        if score is not None and score.better not in DIRECTIONS:
            raise UserError(
                f"tune.objective={objective} is best where the reference's is: choose a distance from it"
            )
        if score is not None:
            return DIRECTIONS[score.better]
    raise UserError(
        f"tune.objective={objective} is no score of the chosen metrics: choose its metric too, with "
        "metric=[…], or another score"
    )
