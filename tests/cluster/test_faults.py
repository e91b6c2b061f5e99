"""Jobs on a Spark cluster of real processes end with the rows of an undisturbed run, whatever dies under them."""

from __future__ import annotations

import pytest
from fault_ground import STAGE_4C, Ground, receipts, submit_4c, wait_for_receipts
from fault_outcome import Events, Outcome
from fault_scenarios import SCENARIOS, struck
from faults import markdown, table
from standalone import StandaloneCluster

pytestmark = pytest.mark.spark


@pytest.mark.slow
def test_a_job_outlives_an_executor_and_its_next_run_the_driver(
    drawn_ground: Ground, cluster: StandaloneCluster
) -> None:
    """One job loses an executor and then its driver; the same command does the rest, and only that."""
    out, events = drawn_ground.copy("disturbed"), Events(cluster)
    stage_dir, outcome = out / STAGE_4C, Outcome("executor, then driver")
    job = submit_4c(cluster, out)
    wait_for_receipts(job, stage_dir, 2)
    cluster.executors()[0].kill()
    wait_for_receipts(job, stage_dir, 6)
    done = receipts(stage_dir)
    job.kill_driver()
    assert not (stage_dir / "_SUCCESS").exists()
    assert len(done) < len(receipts(drawn_ground.run / STAGE_4C))

    again = submit_4c(cluster, out)

    assert again.wait() == 0, again.text()[-3000:]
    after = receipts(stage_dir)
    assert {unit: after[unit] for unit in done} == done
    outcome.compare(drawn_ground.undisturbed(STAGE_4C), stage_dir)
    assert outcome.is_good, outcome.all_problems
    # at most the units in flight at either death were begun twice; logs of the killed may lack their last lines
    assert events.attempts() - len(after) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_or_doubled(name: str, simulated_ground: Ground, cluster: StandaloneCluster) -> None:
    cluster.heal()
    outcome = struck(name, simulated_ground, cluster)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.is_good, outcome.all_problems


def test_the_table_says_what_was_not_possible_and_what_was_not_equal() -> None:
    outcomes = [
        Outcome("full-disk", skipped="no mount namespace here"),
        Outcome("driver", fault="the driver", rows_expected=10, rows_found=11, units=5, attempts=7, seconds=3.0),
    ]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(outcomes).splitlines()]
    assert cells[2][-1] == "not possible here: no mount namespace here"
    assert cells[3] == ["driver", "10", "11", "NO", "5", "2", "3", "", "the driver"]
    assert "NO" in table(outcomes)
    assert [outcome.is_good for outcome in outcomes] == [True, False]
