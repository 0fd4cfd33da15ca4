"""Keys of stored artefacts, written down before files moved, are still those of the same plans.

If one changes, every stored result of its kind is computed again. That is right if its meaning changed:
raise the version of the component or of the stage, and then write the new key down.
"""

import json
from pathlib import Path

import pytest

from runner.store import Store
from tests.conftest import keys_of, plan_of, result_of

GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text())

# By overrides, the key of each stage; the key of predictions is for weights whose checksum is all zeros.
PLANS: dict[str, dict[str, str]] = GOLDEN["plans"]

# By overrides, the keys in the store of a run. Those of predictions are left out: they depend on the
# weights, and so on the machine.
RUNS: dict[str, dict[str, list[str]]] = GOLDEN["runs"]


@pytest.mark.parametrize("overrides", PLANS)
def test_a_plan_has_the_keys_that_were_written_down(overrides: str) -> None:
    assert keys_of(plan_of(*overrides.split())) == PLANS[overrides]


@pytest.mark.parametrize("overrides", RUNS)
def test_a_run_stores_its_artefacts_under_the_keys_that_were_written_down(
    overrides: str, tmp_path: Path
) -> None:
    result_of(
        plan_of(
            *overrides.split(),
            "tracking=off",
            "threads=1",
            "evaluation.references=1",
            f"paths.root={tmp_path}",
        )
    )
    found: dict[str, list[str]] = {}
    for made in sorted(Store(tmp_path / "store").artefacts(), key=lambda made: made.key):
        found.setdefault(made.stage, []).append(made.key)
    del found["predict"]
    assert found == RUNS[overrides]
