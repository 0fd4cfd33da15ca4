"""python -m runner.doctor [option=value …]

Before a run or a sweep: what it costs, and what its numbers can tell. The original is trained if it is
not stored.
"""

from runner.errors import command


def main(overrides: list[str]) -> None:
    """Print the findings on the run that the options describe."""
    from runner import process, stages
    from runner.compose import composed
    from runner.doctor.costs import of_costs
    from runner.doctor.findings import of_attacks, of_request
    from runner.doctor.outcomes import of_original, of_results
    from runner.plan import Plan
    from runner.say import say
    from runner.stages.workspace import Workspace
    from runner.store import Store
    from runner.tracking import Tracker

    cfg, names = composed([_first(override) for override in overrides])
    plan = Plan.of(cfg, names)
    process.prepare(plan.device, plan.threads)
    ws = Workspace(plan, Store(plan.root / "store", say), Tracker())
    request, facts = stages.request(ws)
    for finding in (
        *of_request(plan, request, facts),
        *of_attacks(ws.dataset, request),
        *of_costs(ws, request),
        of_original(ws, request),
        *of_results(ws, cfg.table.columns),
    ):
        print(finding)


def _first(override: str) -> str:
    """Return the override with the first of several values: `seed=0` of `seed=0,1,2`."""
    option, _, value = override.partition("=")
    several = "," in value and not value.startswith(("[", "{", "'", '"'))
    return f"{option}={value.split(',')[0]}" if several else override


if __name__ == "__main__":
    command(main, __doc__)
