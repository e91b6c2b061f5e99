"""A whole fetch: bricks dealt to a few threads, rows collected by one, a bar, a summary."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from dhs_pipeline.fetch.files import expected_bytes, files_of
from dhs_pipeline.fetch.limits import Clock, SystemClock, unseeded_uniform
from dhs_pipeline.fetch.partial import claimed
from dhs_pipeline.fetch.record import KnownFiles, Recorder, compact, folder_of
from dhs_pipeline.fetch.server import Server, StoppedError
from dhs_pipeline.fetch.summary import Tally
from dhs_pipeline.fetch.work import FetchPlan, Outcome, Work
from dhs_pipeline.storage import StorageError

_Event = Outcome | BaseException | None
"""What threads report; None: one has come to its end."""


_LISTEN_S = 0.5
"""Between looks at the time when no file comes to its end."""

_PATIENCE_S = 5.0
"""How long a run that is being stopped waits for its threads; one may sit in a silent connection for a minute."""


def run_fetch(
    plan: FetchPlan,
    *,
    progress: bool,
    clock: Clock | None = None,
    uniform: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Fetch what is not there yet, record every file, and return (and write) the summary.

    Raises
    ------
    StorageError
        If the destination cannot be read or written, or another process is at work on this shard.
    """
    plan.destination.make_dir()
    plan.destination.check_writable()
    stop = threading.Event()
    draw = uniform or unseeded_uniform()
    timer = clock or SystemClock(stop)
    with claimed(plan.partials()) as partials:
        server = Server(plan.settings, connections=plan.jobs, clock=timer, uniform=draw, stop=stop)
        work = Work(plan, KnownFiles(plan.destination, plan.bricks), server, partials)
        try:
            return _collect(plan, work, progress=progress, clock=timer, draw=draw, stop=stop)
        finally:
            server.close()


def _collect(
    plan: FetchPlan, work: Work, *, progress: bool, clock: Clock, draw: Callable[[], float], stop: threading.Event
) -> dict[str, Any]:
    """Run the threads, write the rows that they report, and sum up, whatever ends it."""
    events: queue.Queue[_Event] = queue.Queue()
    bricks = _Shared(plan.bricks)
    delays_s = [draw() * plan.settings.start_jitter_s for _ in range(plan.jobs)]
    threads = [
        threading.Thread(target=_thread, args=(work, bricks, events, clock, delay_s, stop), daemon=True)
        for delay_s in delays_s
    ]
    recorder = Recorder(plan.destination, plan.shard.tag)
    tally = Tally(plan.bricks, plan.settings, plan.shard)
    bar = _Bar(plan, progress)
    for thread in threads:
        thread.start()
    tally.stopped = "interrupted"
    try:
        tally.stopped = _listen(plan, events, recorder, tally, bar)
    finally:
        stop.set()
        deadline = time.monotonic() + _PATIENCE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for event in _left(events):  # files that were done while the others were being stopped
            _note(event, recorder, tally, bar)
        bar.close()
        recorder.flush()
        if tally.stopped is None:
            compact(plan.destination, plan.shard.tag)
        name = "summary.json" if plan.shard.of == 1 else f"summary-{plan.shard.tag}.json"
        summary = tally.summary()
        (folder_of(plan.destination) / name).write_json(summary)
    return summary


def _thread(
    work: Work, bricks: _Shared, events: queue.Queue[_Event], clock: Clock, delay_s: float, stop: threading.Event
) -> None:
    """Take bricks until there are none, and report."""
    try:
        if delay_s:
            clock.sleep(delay_s)
        for brick in bricks:
            for outcome in work.brick(brick):
                events.put(outcome)
            if stop.is_set():
                break
    except StoppedError:
        pass
    except BaseException as error:  # noqa: BLE001 - the collecting thread raises it
        events.put(error)
    finally:
        events.put(None)


def _listen(plan: FetchPlan, events: queue.Queue[_Event], recorder: Recorder, tally: Tally, bar: _Bar) -> str | None:
    """Until every thread has come to its end, or too many files in a row failed: then the reason to stop."""
    running = plan.jobs
    written_at = time.monotonic()
    while running:
        if recorder.waiting >= plan.settings.record_rows or (
            recorder.waiting and time.monotonic() - written_at >= plan.settings.record_every_s
        ):
            recorder.flush()
            written_at = time.monotonic()
        try:
            event = events.get(timeout=_LISTEN_S)
        except queue.Empty:
            continue
        if event is None:
            running -= 1
        elif isinstance(event, OSError) and not isinstance(event, StorageError):
            reason = event.strerror or " ".join(str(event).split())
            raise StorageError(f"{plan.destination}: cannot read or write there ({reason})") from event
        elif isinstance(event, BaseException):
            raise event
        else:
            _note(event, recorder, tally, bar)
        if tally.failed_in_a_row >= plan.settings.stop_after_failures:
            return f"{tally.failed_in_a_row} files in a row FAILED, the last with: {tally.last_failure}"
    return None


def _note(event: Outcome, recorder: Recorder, tally: Tally, bar: _Bar) -> None:
    if event.row is not None:
        recorder.add(event.row)
        tally.add_new(event.row)
    elif event.known is not None:
        tally.add_known(event.file.path, event.file.brick, event.known)
    bar.settle(event)


def _left(events: queue.Queue[_Event]) -> Iterator[Outcome]:
    while True:
        try:
            event = events.get_nowait()
        except queue.Empty:
            return
        if isinstance(event, Outcome):
            yield event


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, items: Sequence[str]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._lock:
            return next(self._items)


class _Bar:
    """Bytes, bytes per second and the time that is left; of files that are known or absent, nothing is expected."""

    def __init__(self, plan: FetchPlan, progress: bool) -> None:
        self._settings = plan.settings
        per_brick = sum(expected_bytes(f, plan.settings) for f in files_of("0000p000", plan.survey))
        self._bar = tqdm(
            total=per_brick * len(plan.bricks), unit="B", unit_scale=True, desc="bricks fetch", disable=not progress
        )

    def settle(self, outcome: Outcome) -> None:
        """The file's true size, or none, takes the place of the expected one."""
        came = outcome.row.bytes or 0 if outcome.row is not None and outcome.row.attempts else 0
        self._bar.total += came - expected_bytes(outcome.file, self._settings)
        self._bar.update(came)

    def close(self) -> None:
        self._bar.close()
