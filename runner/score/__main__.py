"""python -m runner.score name=digits_small_cnn_whole_class [metric=[…]] [--train]

Score the stored results of a name again, with the metrics that the options choose. Evidence that is not
stored is named, and its metrics are skipped; --train makes it by running the results' commands again.
"""

from runner.errors import command
from runner.naming import folder_of, run_name

TRAIN = "--train"


def main(arguments: list[str]) -> None:
    """Score all results of a name, and print its table."""
    from metrics.metric import Metric
    from runner.compose import composed
    from runner.pipeline import run
    from runner.plan import Plan, build_chosen
    from runner.report import show
    from runner.results import Results
    from runner.say import say
    from runner.score.again import Again
    from runner.store import Store

    overrides = [argument for argument in arguments if argument != TRAIN]
    cfg, names = composed(overrides)
    root, name = folder_of("paths.root", cfg.paths.root), run_name(cfg.name, names)
    metrics = build_chosen(cfg.evaluation.metrics, Metric, "evaluation.metrics")
    results = Results(root / "results")
    again = Again(Store(root / "store", say), results, list(metrics.values()), say)
    done = [result for result in results.named(name) if result.status == "done"]
    incomplete = [result for result in done if not again.score(result)]
    if TRAIN in arguments:
        for result in incomplete:
            command = list(dict.fromkeys([*result.overrides, *overrides, f"name={name}"]))
            run(Plan.of(*composed(command)), command)
    else:
        again.report()
    chosen = any(each.startswith("metric=") for each in overrides)
    show(cfg, name, [score for metric in metrics.values() for score in metric.about()] if chosen else ())


if __name__ == "__main__":
    command(main, __doc__, [TRAIN])
