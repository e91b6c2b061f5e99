"""Manners, measured with a clock that does not wait: spacing, back-off, jitter, pauses."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import pytest
from bad_server import BadServer
from fetch_cases import FakeClock, fetch, serve
from hypothesis import given
from hypothesis import strategies as st

from dhs_pipeline.fetch.limits import Backoff, Pace, SystemClock, unseeded_uniform
from dhs_pipeline.fetch.server import Server, TransientError
from dhs_pipeline.fetch.settings import load_fetch_settings


@given(st.integers(2, 60), st.floats(0.1, 50))
def test_so_many_a_second_and_no_more(times: int, per_second: float) -> None:
    clock = FakeClock()
    pace = Pace(per_second, clock)
    turns = []
    for _ in range(times):
        pace.take()
        turns.append(clock.now())
    gaps = [b - a for a, b in pairwise(turns)]
    assert min(gaps) >= (1 - 1e-6) / per_second
    assert turns[-1] - turns[0] == pytest.approx((times - 1) / per_second)


def test_idle_time_is_no_credit() -> None:
    clock = FakeClock()
    pace = Pace(2.0, clock)
    pace.take()
    clock.sleep(100)
    start = clock.now()
    for _ in range(5):
        pace.take()
    assert clock.now() - start == pytest.approx(2.0)


def test_a_hold_is_for_everybody() -> None:
    clock = FakeClock()
    pace = Pace(1000.0, clock)
    start = clock.now()
    pace.hold(30)
    pace.take()
    assert clock.now() - start == pytest.approx(30)


@given(st.integers(1, 500), st.floats(0, 0.999999))
def test_backoff_doubles_within_its_bounds(retry: int, drawn: float) -> None:
    delay = Backoff(1.0, 60.0, 0.25, lambda: drawn).delay_s(retry)
    middle = min(2.0 ** (retry - 1), 60.0)
    assert 0.75 * middle <= delay <= 1.25 * middle


def test_jitter_spreads_over_its_whole_width() -> None:
    backoff = Backoff(8.0, 60.0, 0.25, unseeded_uniform())
    delays = [backoff.delay_s(1) for _ in range(400)]
    assert min(delays) < 6.3
    assert max(delays) > 9.7
    assert 6 <= min(delays) <= max(delays) <= 10


def test_a_stopped_run_does_not_sleep() -> None:
    stop = threading.Event()
    stop.set()
    SystemClock(stop).sleep(3600)


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_whole_run_keeps_both_limits(server: BadServer, tmp_path: Path, jobs: int) -> None:
    bricks = [f"059{i}m305" for i in range(4)]
    serve(server, bricks)
    clock = FakeClock()
    start = clock.now()
    fetch(server, tmp_path, bricks, clock=clock, jobs=jobs, requests_per_second=0.5, megabytes_per_second=1000)
    assert len(server.log) == 4 * 6
    assert clock.now() - start >= (len(server.log) - 1) / 0.5 * (1 - 1e-9)

    clock = FakeClock()
    start = clock.now()
    summary = fetch(
        server, tmp_path / "b", bricks, clock=clock, jobs=jobs, requests_per_second=1e6, megabytes_per_second=0.001
    )
    # 1 kB a second; the last chunk of each connection is not waited for
    assert clock.now() - start >= (summary["bytes"] - jobs * 1000) / 1000


def test_connections_begin_spread_out(server: BadServer, tmp_path: Path) -> None:
    serve(server)
    clock = FakeClock()
    fetch(server, tmp_path, clock=clock, jobs=3, start_jitter_s=2)
    assert clock.slept.count(1.0) == 3


class StoppedClock(FakeClock):
    """Notes how long somebody wants to sleep, and lets no time pass."""

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_a_pause_holds_the_other_connections_too(server: BadServer) -> None:
    """One connection was told to wait for 100 s; what another asks for next has to wait as long."""
    clock = StoppedClock()
    settings = load_fetch_settings("dr10", [f"base_url={server.url}"])
    asked = Server(settings, connections=2, clock=clock, uniform=lambda: 0.5, stop=threading.Event())
    server.files["other"] = b"x"
    answers = iter([TransientError("HTTP 429", 429, retry_after_s=100.0), None])

    def attempt() -> None:
        if (answer := next(answers)) is not None:
            raise answer

    asked.patiently(attempt)
    clock.slept.clear()
    with asked.get("other") as response:
        assert response.status == 200
    assert clock.slept == [pytest.approx(100.0)]
