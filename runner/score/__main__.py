"""python -m runner.score name=digits_small_cnn_whole_class [metric=[…]] [--train]

Score the stored results of a name again, with the metrics that the options choose. Evidence that is not
stored is named, and its metrics are skipped; --train makes it by running the results' commands again.
"""

import sys

from runner.errors import run_command, text_of
from runner.naming import as_typed, command_of, folder_of, run_name

TRAIN = "--train"

# Options that choose metrics and their evidence, and those of the runs that make it.
READS = ("metric", "evaluation", "data.root", "data.download", "device", "threads", "tracking")


def main(arguments: list[str]) -> None:
    """Score all results of a name, and print its table."""
    from metrics.metric import Metric
    from runner.plan import build_chosen
    from runner.reading import TABLE, composed_for
    from runner.report import show
    from runner.results import Results
    from runner.say import say
    from runner.score.again import Again
    from runner.store import Store

    overrides = [argument for argument in arguments if argument != TRAIN]
    cfg, names = composed_for(overrides, *READS, *TABLE)
    root, name = folder_of("paths.root", cfg.paths.root), run_name(cfg.name, names)
    metrics = build_chosen(cfg.evaluation.metrics, Metric, "evaluation.metrics")
    results = Results(root / "results")
    given = list(dict.fromkeys([*overrides, as_typed("name", name)]))
    again = Again(Store(root / "store", say), results, list(metrics.values()), say, given)
    done = [result for result in results.named(name) if result.status == "done"]
    incomplete = [result for result in done if not again.score(result)]
    failed = []
    if TRAIN in arguments:
        commands = [again.command(result) for result in incomplete]
        failed = [command for command in commands if not _has_run(command)]
    else:
        again.report()
    chosen = any(each.startswith("metric=") for each in overrides)
    show(cfg, name, [score for metric in metrics.values() for score in metric.about()] if chosen else ())
    if failed:
        lines = "".join(f"\n  {command_of(command)}" for command in failed)
        sys.exit(f"error: {len(failed)} of {len(incomplete)} runs failed, for the reasons above:{lines}")


def _has_run(command: list[str]) -> bool:
    """Run a command, given by its overrides. Say why it failed, and return false, if it did."""
    from runner.compose import composed
    from runner.pipeline import run
    from runner.plan import Plan
    from runner.say import say

    try:
        run(Plan.of(*composed(command)), command)
    except Exception as error:
        text = text_of(error)
        say(f"{command_of(command)} failed: {text}")
        return False
    return True


if __name__ == "__main__":
    run_command(main, __doc__, [TRAIN])
