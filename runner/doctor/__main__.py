"""python -m runner.doctor [option=value …]

Before a run or a sweep: what its first cell costs, and what its numbers can tell. A few steps are
trained to tell the time, and no model is stored: only the request, and the predictions of an original
that is stored already.
"""

from runner.errors import run_command


def main(overrides: list[str]) -> None:
    """Print the findings on the run that the options describe."""
    from itertools import chain

    from runner import process, stages
    from runner.compose import composed, jobs
    from runner.doctor.costs import of_costs
    from runner.doctor.findings import of_attacks, of_cells, of_precision, of_request
    from runner.doctor.outcomes import of_original, of_results
    from runner.plan import Plan
    from runner.say import say
    from runner.stages.workspace import Workspace
    from runner.store import Store

    cells = jobs(overrides)
    cfg, names = composed(cells[0])
    plan = Plan.of(cfg, names)
    process.prepare(plan.device, plan.threads)
    ws = Workspace(plan, Store(plan.root / "store", say))
    request, facts = stages.request(ws)
    for finding in chain(  # lazily, since timing a step can take minutes
        of_cells(cells),
        of_precision(plan),
        of_request(ws, facts),
        of_attacks(ws, request, facts),
        of_costs(ws, request),
        of_original(ws, request),
        of_results(ws, cfg.table.columns),
    ):
        print(finding)


if __name__ == "__main__":
    run_command(main, __doc__)
