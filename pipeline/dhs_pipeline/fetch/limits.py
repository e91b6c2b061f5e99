"""How fast and how patiently: the pace of requests and bytes, and the waits between tries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Clock(Protocol):
    """Time as the fetch sees it; tests bring their own."""

    def now(self) -> float:
        """Seconds from some fixed moment, never backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, or less if the run is being stopped."""
        ...


class SystemClock:
    """The machine's clock, whose sleepers wake up when ``stop`` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)


class Pace:
    """Lets a thing happen so many times (or bytes) per second and no faster, whoever asks.

    There is no credit for idle time: after a pause the next ones are spaced as before.
    """

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._per_second = per_second
        self._clock = clock
        self._free_at = float("-inf")
        self._lock = threading.Lock()

    def take(self, amount: float = 1.0) -> None:
        """Wait for the turn; ``amount`` pushes back the next one."""
        with self._lock:
            now = self._clock.now()
            turn = max(now, self._free_at)
            self._free_at = turn + amount / self._per_second
        if turn > now:
            self._clock.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """No turn for so long: the server asked for a pause."""
        with self._lock:
            self._free_at = max(self._free_at, self._clock.now() + seconds)


@dataclass(frozen=True)
class Backoff:
    """Waits that double from ``first_s`` to ``max_s``, each spread evenly by ± ``jitter`` of its length."""

    first_s: float
    max_s: float
    jitter: float
    uniform: Callable[[], float]

    def delay_s(self, retry: int) -> float:
        """Seconds before the ``retry``-th retry, counted from 1."""
        doublings = min(retry - 1, 60)
        delay = min(self.first_s * 2.0**doublings, self.max_s)
        return delay * (1 + self.jitter * (2 * self.uniform() - 1))


def unseeded_uniform() -> Callable[[], float]:
    """Numbers in [0, 1) that differ from machine to machine; nothing that is written depends on them."""
    generator = np.random.Generator(np.random.Philox())
    lock = threading.Lock()

    def draw() -> float:
        with lock:
            return float(generator.random())

    return draw
