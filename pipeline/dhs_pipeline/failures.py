"""What a Spark job that gave up says to the user: the reason in one line, where it is one that the user can mend.

Spark retries a task (``spark.task.maxFailures``, 4 by default) and then fails the job with the text of the last
attempt. A full disk, a store that does not answer, too little memory, workers that die: these are told in one line. An
error of the code itself keeps its traceback.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from contextlib import contextmanager


class JobFailedError(RuntimeError):
    """A Spark job that gave up for a reason outside the code; the message is one line for the user."""


_ABORTED = re.compile(r"Job aborted due to stage failure: (?P<reason>.*)", re.DOTALL)
_LAST_ATTEMPT = re.compile(
    r"Task \S+ in stage \S+ failed (?P<times>\d+) times, most recent failure: "
    r"Lost task \S+ in stage \S+ \(TID \d+\) \((?P<host>\S+) executor [^)]*\): (?P<cause>.*)",
    re.DOTALL,
)
_PYTHON_ERROR = re.compile(r"^(?P<name>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")
_CLOSED_SOCKET = ("java.io.EOFException", "java.net.SocketException")
_AFTERWARDS = "what has finished stays"
_SAME_COMMAND = "same command"


@contextmanager
def told_in_one_line(label: str) -> Iterator[None]:
    """Turn the failure of a Spark job into JobFailedError, if it says what went wrong outside the code.

    Parameters
    ----------
    label
        The job, as the user knows it.
    """
    from py4j.protocol import Py4JJavaError

    try:
        yield
    except Py4JJavaError as error:
        if (reason := outside_reason(str(error))) is None:
            raise
        advice = "" if _SAME_COMMAND in reason else f", the {_SAME_COMMAND} does the rest"
        raise JobFailedError(f"{label}: {reason}; {_AFTERWARDS}{advice}") from error


def outside_reason(text: str) -> str | None:
    """The reason in one line out of Spark's text about a failed job; None if it is an error of the code."""
    if (aborted := _ABORTED.search(text)) is None:
        return None
    if (last := _LAST_ATTEMPT.match(aborted["reason"])) is None:
        return _first_line(aborted["reason"])
    if "Traceback (most recent call last)" not in last["cause"]:
        cause: str | None = _as_worker_death(_first_line(last["cause"]))
    else:
        cause = _outside_error(last["cause"])
    return cause and f"a task failed {last['times']} times, at last on {last['host']}: {cause}"


def _as_worker_death(line: str) -> str:
    """Spark names a worker that dies while it works; of one that dies as it starts the JVM sees its socket close."""
    return f"Python worker exited unexpectedly ({line})" if line.startswith(_CLOSED_SOCKET) else line


def _outside_error(cause: str) -> str | None:
    """``Name: message`` that ends a worker's traceback, if the code is not to blame for it."""
    traceback = cause.split("\n\tat ")[0]
    found = [match for line in traceback.splitlines() if (match := _PYTHON_ERROR.match(line))]
    if not found or not _is_outside(found[-1]["name"]):
        return None
    name, message = found[-1]["name"].rpartition(".")[2].lstrip("_"), found[-1]["message"]
    return f"{name}: {message}" if message else name


def _is_outside(name: str) -> bool:
    """Errors of the system, and those that this package raises for its users."""
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, OSError | MemoryError):
        return True
    return name.endswith("MemoryError") or name.startswith("dhs_pipeline.")


def _first_line(text: str) -> str:
    return text.splitlines()[0].strip()
