"""The steady state of 4c, from the receipts of its units."""

import pytest
from endtoend import steady_state

from dhs_pipeline.receipts import Effort, Receipt


def receipt(pid, finished, seconds, cpu, rows=100):
    effort = Effort(seconds, cpu, 100.0, finished, "host", pid, 0)
    return Receipt(f"{pid}-{finished}", "plan", rows, {}, {}, {}, effort)


def test_first_units_do_not_count_and_workers_add_up():
    first = [receipt(1, 10.0, 9.0, 8.0), receipt(2, 11.0, 9.0, 8.0)]
    rest = [
        receipt(1, 11.0, 0.9, 0.5),
        receipt(1, 12.0, 0.9, 0.5),
        receipt(2, 13.0, 2.0, 0.5),
        receipt(2, 15.0, 2.0, 0.5),
    ]
    found = steady_state([*rest[::-1], *first])
    assert found.cpu_ms == pytest.approx(5.0)
    assert found.stamps_per_s == pytest.approx(200 / 2 + 200 / 4)
    assert found.busy == pytest.approx(5.8 / 6)


def test_too_few_units_are_an_error():
    with pytest.raises(ValueError, match="no worker has three of the 2 units"):
        steady_state([receipt(1, 1.0, 1.0, 1.0), receipt(1, 2.0, 1.0, 1.0)])
