"""Spark's text of a failed job, as 4.1 and 3.5 wrote it on a cluster, and what the user reads."""

from __future__ import annotations

import pytest

from dhs_pipeline.failures import outside_reason

HEAD = "An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.\n: "
ABORTED = (
    f"{HEAD}org.apache.spark.SparkException: Job aborted due to stage failure: Task 9 in stage 0.0 failed 4 times, "
    "most recent failure: Lost task 9.3 in stage 0.0 (TID 18) (10.0.0.2 executor 1): "
)
JAVA = (
    "\n\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:645)"
)
DRIVER = "\n\nDriver stacktrace:\n\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:3122)"
SAID = "a task failed 4 times, at last on 10.0.0.2: "


def python(last_line: str) -> str:
    """A worker's traceback, with a chained error before the last one."""
    return (
        f"{ABORTED}org.apache.spark.api.python.PythonException: Traceback (most recent call last):\n"
        '  File "/opt/dhs/bricks.py", line 8, in read\n    open(path)\nKeyError: 3\n\n'
        "During handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "/opt/dhs/stage.py", line 204, in counted\n'
        f"    for receipt in work(part):\n{last_line}\n{JAVA}{DRIVER}\nCaused by: {JAVA}"
    )


@pytest.mark.parametrize(
    ("last_line", "said"),
    [
        ("OSError: [Errno 28] No space left on device", "OSError: [Errno 28] No space left on device"),
        ("MemoryError", "MemoryError"),
        (
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 3.00 GiB",
            "ArrayMemoryError: Unable to allocate 3.00 GiB",
        ),
        ("pyarrow.lib.ArrowMemoryError: malloc of size 64 failed", "ArrowMemoryError: malloc of size 64 failed"),
        ("dhs_pipeline.storage.StorageError: s3://b/k: denied", "StorageError: s3://b/k: denied"),
    ],
)
def test_what_lies_outside_the_code_is_one_line(last_line: str, said: str) -> None:
    assert outside_reason(python(last_line)) == SAID + said


@pytest.mark.parametrize("last_line", ["TypeError: unsupported operand", "KeyError: 'host_id'", "AssertionError"])
def test_an_error_of_the_code_keeps_its_traceback(last_line: str) -> None:
    assert outside_reason(python(last_line)) is None


def test_the_error_that_was_raised_counts_and_not_the_one_it_came_from() -> None:
    text = python("TypeError: no").replace("KeyError: 3", "OSError: [Errno 28] No space left on device")
    assert outside_reason(text) is None


def test_workers_that_die_are_told_without_a_traceback() -> None:
    lost = "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: Container killed"
    assert outside_reason(f"{ABORTED}{lost}{DRIVER}") == SAID + lost
    assert outside_reason(
        f"{HEAD}Job aborted due to stage failure: Master removed our application: KILLED\n\tat x"
    ) == ("Master removed our application: KILLED")


@pytest.mark.parametrize("closed", ["java.io.EOFException", "java.net.SocketException: Connection reset"])
def test_a_worker_that_dies_as_it_starts_is_told_as_one_that_dies_at_work(closed: str) -> None:
    said = f"{SAID}Python worker exited unexpectedly ({closed})"
    assert outside_reason(f"{ABORTED}{closed}\n\tat java.base/java.io.DataInputStream{DRIVER}") == said


def test_other_errors_of_spark_are_not_explained() -> None:
    assert outside_reason(f"{HEAD}java.lang.IllegalArgumentException: spark.executor.cores") is None
