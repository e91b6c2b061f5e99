"""Faults, each done to a job on a cluster of real processes, and what was left of the job's output afterwards.

Faults come at a moment that the job's own receipts give, never after a sleep. Each scenario checks that its fault
really happened: an outcome is good only if the fault came and the rows are those of the undisturbed run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from fault_ground import (
    GENERATION,
    STAGE_4C,
    Ground,
    checksums,
    dhs,
    found,
    receipts,
    submit_4b,
    submit_4c,
    wait_for_receipts,
)
from fault_outcome import Events, Outcome
from small_disk import NotPermittedError, SmallDisk
from standalone import HOSTS, ClusterError, StandaloneCluster, Submission, wait_until

UNITS_BEFORE_THE_FAULT = 3


# --- something dies --------------------------------------------------------------------------------------------------


def python_worker(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """SIGKILL to a Python worker, as the kernel does to the largest process when memory runs out."""

    def fault() -> str:
        # One that is hit between its tasks, while it tidies up, is not missed; three are fewer than a task may fail.
        for _ in range(3):
            busy: list[psutil.Process] = []
            while cluster.python_workers() and not busy:
                busy = _busy(cluster.python_workers())
            _signal(busy[:1], "kill")
            time.sleep(0.7)
        return "three Python workers, one after the other (SIGKILL)"

    return _survives("python-worker", fault, "ExceptionFailure", ground, cluster)


def executor(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """SIGKILL to an executor's JVM, as YARN does to a container above its memory."""

    def fault() -> str:
        cluster.executors()[0].kill()
        return "an executor (SIGKILL)"

    return _survives("executor", fault, "ExecutorLostFailure", ground, cluster)


def machine(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """A worker machine goes with all that runs on it; the job ends on the other one."""

    def fault() -> str:
        cluster.kill_machine(HOSTS[1])
        return "a machine: worker, executor, Python (SIGKILL)"

    try:
        return _survives("machine", fault, "ExecutorLostFailure", ground, cluster)
    finally:
        cluster.heal()


def _survives(name: str, fault: Callable[[], str], reason: str, ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """The same job goes on to its end."""
    outcome, out, events = Outcome(name), ground.copy(name), Events(cluster)
    job = submit_4c(cluster, out)
    wait_for_receipts(job, out / STAGE_4C, UNITS_BEFORE_THE_FAULT)
    outcome.fault = fault()
    outcome.require(job.wait() == 0, f"exit code {job.wait()}: {job.told()}")
    outcome.require_fault(events.ends()[reason], f"no task ended with {reason}: {dict(events.ends())}")
    return _finished(outcome, ground, out, events, [job])


def driver(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """The driver dies; the same command does what is left, and only that."""
    outcome, out, events = Outcome("driver"), ground.copy("driver"), Events(cluster)
    killed = submit_4c(cluster, out)
    wait_for_receipts(killed, out / STAGE_4C, UNITS_BEFORE_THE_FAULT)
    before = receipts(out / STAGE_4C)
    killed.kill_driver()
    outcome.fault = "the driver (SIGKILL), then the same command again"
    outcome.require(not (out / STAGE_4C / "_SUCCESS").exists(), "_SUCCESS after a killed driver")
    resumed = submit_4c(cluster, out)
    outcome.require(resumed.wait() == 0, f"exit code {resumed.wait()}: {resumed.told()}")
    _check_kept(outcome, before, receipts(out / STAGE_4C))
    return _finished(outcome, ground, out, events, [killed, resumed])


def every_worker(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """Every Python worker dies until Spark gives up; when the cause is gone the same command does the rest."""
    outcome, out, events = Outcome("every-worker"), ground.copy("every-worker"), Events(cluster)
    stopped = submit_4c(cluster, out)
    wait_for_receipts(stopped, out / STAGE_4C, UNITS_BEFORE_THE_FAULT)
    outcome.fault = "every Python worker (SIGKILL) until the job fails, then the same command again"
    while stopped.is_running():
        _signal(cluster.python_workers(), "kill")
    before = receipts(out / STAGE_4C)
    _check_one_line(outcome, stopped, "Python worker exited unexpectedly")
    resumed = submit_4c(cluster, out)
    outcome.require(resumed.wait() == 0, f"exit code {resumed.wait()}: {resumed.told()}")
    _check_kept(outcome, before, receipts(out / STAGE_4C))
    return _finished(outcome, ground, out, events, [stopped, resumed])


def _check_one_line(outcome: Outcome, job: Submission, reason: str) -> None:
    """The job ended with exit code 2 and one line that gives the reason."""
    told = job.told()
    outcome.said = " / ".join(told)
    outcome.require(job.wait() == 2, f"exit code {job.wait()}, not 2")
    outcome.require(len(told) == 1, f"{len(told)} lines from dhs, not one")
    outcome.require(any(reason in line for line in told), f"the message does not say {reason!r}")
    outcome.require("Traceback (most recent call last)" not in job.text(), "a traceback beside the message")


def _check_kept(outcome: Outcome, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
    """No finished unit was written again."""
    again = sorted(unit for unit, written in before.items() if after.get(unit) != written)
    outcome.require(not again, f"finished units were done again: {', '.join(again)}")


def two_drivers(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """The same command is given twice at once, as by a scheduler that believes the first one dead."""
    outcome, out, events = Outcome("two-drivers"), ground.copy("two-drivers"), Events(cluster)
    one_core_each = {"cores_max": 1}
    jobs = [submit_4c(cluster, out, **one_core_each) for _ in range(2)]
    outcome.fault = "nothing: two drivers on one output folder"
    codes = [job.wait() for job in jobs]
    told = [line for job in jobs for line in job.told()]
    outcome.said = "; ".join(told)
    outcome.require(0 in codes, f"exit codes {codes}")
    outcome.require(len(told) == sum(code != 0 for code in codes), f"exit codes {codes} and {len(told)} messages")
    outcome.require(set(codes) <= {0, 2}, f"exit codes {codes}")
    outcome.seconds = max(job.seconds for job in jobs)
    # whichever lost, the next command finds a finished stage
    attempts, last = events.attempts(), submit_4c(cluster, out)
    outcome.require(last.wait() == 0, f"the command afterwards: {last.told()}")
    outcome.require(events.attempts() == attempts, "the command afterwards found something to do")
    return _finished(outcome, ground, out, events, [])


def _finished(outcome: Outcome, ground: Ground, out: Path, events: Events, jobs: Sequence[Submission]) -> Outcome:
    outcome.compare(ground.undisturbed(STAGE_4C), out / STAGE_4C)
    outcome.units = len(receipts(out / STAGE_4C))
    outcome.attempts = events.attempts()
    outcome.seconds = outcome.seconds or sum(job.seconds for job in jobs)
    outcome.undisturbed_s = ground.seconds.get(STAGE_4C)
    if outcome.is_good:
        shutil.rmtree(out)
    return outcome


# --- input, disk, memory ---------------------------------------------------------------------------------------------


def corrupt_brick(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """One brick has a truncated file, another one of garbage: their hosts keep their rows, with a status."""
    assert ground.data is not None
    outcome, events = Outcome("corrupt-brick"), Events(cluster)
    data = ground.folder / "damaged-data"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(ground.data, data)
    names = damage_bricks(data)
    outcome.fault = "one brick file truncated, one of another brick overwritten with garbage"
    local = ground.copy("corrupt-brick-local", with_4b=False)
    dhs("stage-4b", "--out", local, "--data", data, "--quiet")
    dhs("stage-4c", "--out", local, "--generation", GENERATION, "--quiet")
    out = ground.copy("corrupt-brick", with_4b=False)
    jobs = []
    for job in (lambda: submit_4b(cluster, out, data), lambda: submit_4c(cluster, out)):
        jobs.append(job())
        outcome.require(jobs[-1].wait() == 0, f"exit code {jobs[-1].wait()}: {jobs[-1].told()}")
    outcome.compare(found(local / "phase4b"), out / "phase4b")
    equal_4b = outcome.is_equal
    outcome.compare(found(local / STAGE_4C), out / STAGE_4C)
    outcome.is_equal = outcome.is_equal and equal_4b
    _check_statuses(outcome, out / "phase4b" / "cutouts", names)
    outcome.units = sum(len(receipts(out / stage)) for stage in ("phase4b", STAGE_4C))
    outcome.attempts = events.attempts()
    outcome.seconds = sum(job.seconds for job in jobs)
    shutil.rmtree(local)
    return outcome


def damage_bricks(data: Path) -> list[str]:
    """Truncate a file of the first brick and overwrite one of the second; their names."""
    images = sorted(data.glob("coadd/*/*/*-image-r.fits.fz"))[:2]
    images[0].write_bytes(images[0].read_bytes()[: images[0].stat().st_size // 2])
    garbage = images[1].with_name(images[1].name.replace("-image-r", "-invvar-z"))
    garbage.write_bytes(b"\x5a" * garbage.stat().st_size)
    return [image.parent.name for image in images]


def _check_statuses(outcome: Outcome, cutouts: Path, damaged: Sequence[str]) -> None:
    """Every host of a damaged brick is FILE_UNREADABLE with the file's name in its message, and no other host is."""
    rows = [r for f in sorted(cutouts.glob("*.parquet")) for r in _rows(f, ["brickname", "status", "message"])]
    for row in rows:
        is_unreadable = row["status"] == "FILE_UNREADABLE"
        if is_unreadable != (row["brickname"] in damaged):
            outcome.problems.append(f"a host of brick {row['brickname']} ended as {row['status']}")
        elif is_unreadable and ".fits.fz" not in (row["message"] or ""):
            outcome.problems.append(f"the message names no file: {row['message']}")


def _rows(file: Path, columns: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(file, columns=columns).to_pylist()
    return rows


def full_disk(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """The output's disk fills up in the middle of 4c; after space is made the same command finishes."""
    outcome, out = Outcome("full-disk"), ground.copy("full-disk")
    whole_mb = sum(f.stat().st_size for f in (ground.run / STAGE_4C).rglob("*.parquet")) / 1e6
    outcome.fault = (
        f"output disk of {whole_mb * 0.4:.0f} MB for {whole_mb:.0f} MB, then enlarged, the same command again"
    )
    try:
        with (
            SmallDisk(out / "phase4c", int(whole_mb * 0.4)) as disk,
            StandaloneCluster(ground.folder / "full-disk-cluster", prefix=disk.prefix) as inside,
        ):
            _fill_and_resume(outcome, ground, out, disk, inside, int(whole_mb * 3))
    except NotPermittedError as reason:
        outcome.skipped = str(reason)
    return outcome


def _fill_and_resume(
    outcome: Outcome, ground: Ground, out: Path, disk: SmallDisk, cluster: StandaloneCluster, enough_mb: int
) -> None:
    events, stage_dir = Events(cluster), disk.seen / GENERATION
    stopped = submit_4c(cluster, out)
    stopped.wait()
    _check_one_line(outcome, stopped, "o space left on")  # this disk, or device
    outcome.require(not (stage_dir / "_SUCCESS").exists(), "_SUCCESS on a full disk")
    whole = checksums(ground.run / STAGE_4C)
    for name, checksum in checksums(stage_dir).items():
        outcome.require(whole[name] == checksum, f"{name} is there under its final name, and not whole")
    disk.grow(enough_mb)
    before = receipts(stage_dir)
    resumed = submit_4c(cluster, out)
    outcome.require(resumed.wait() == 0, f"exit code {resumed.wait()}: {resumed.told()}")
    after = receipts(stage_dir)
    _check_kept(outcome, before, after)
    outcome.compare(ground.undisturbed(STAGE_4C), stage_dir)
    outcome.units, outcome.attempts = len(after), events.attempts()
    outcome.seconds, outcome.undisturbed_s = stopped.seconds + resumed.seconds, ground.seconds.get(STAGE_4C)


def memory_4b(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """Memory runs out while bricks are read: no host may be blamed for it."""
    assert ground.data is not None
    outcome, out, events = Outcome("memory-4b"), ground.copy("memory-4b", with_4b=False), Events(cluster)
    job = submit_4b(cluster, out, ground.data, task_maxFailures=20)
    outcome.fault = "memory limit (RLIMIT_AS) of Python workers in 4b"
    _starve(outcome, job, cluster, events, out / "phase4b", units=1, least_cpu_s=0.5)
    outcome.compare(ground.undisturbed("phase4b"), out / "phase4b")
    outcome.units, outcome.attempts = len(receipts(out / "phase4b")), events.attempts()
    outcome.seconds, outcome.undisturbed_s = job.seconds, ground.seconds.get("phase4b")
    return outcome


def memory_4c(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """Memory runs out while stamps are made: the unit is done again, no row fails."""
    outcome, out, events = Outcome("memory-4c"), ground.copy("memory-4c"), Events(cluster)
    job = submit_4c(cluster, out, task_maxFailures=20)
    outcome.fault = "memory limit (RLIMIT_AS) of Python workers in 4c"
    _starve(outcome, job, cluster, events, out / STAGE_4C, units=UNITS_BEFORE_THE_FAULT, least_cpu_s=1.5)
    return _finished(outcome, ground, out, events, [job])


_HEADROOM_MB = (0, 1, 2, 4, 8, 16)


def _starve(
    outcome: Outcome,
    job: Submission,
    cluster: StandaloneCluster,
    events: Events,
    stage_dir: Path,
    *,
    units: int,
    least_cpu_s: float,
) -> None:
    """Allow Python workers no more memory than they have, or little more, until one has met a MemoryError.

    It begins once ``units`` are done, with workers that have used ``least_cpu_s``. Which allocation fails is chance: in
    C libraries it may end the process instead, and the next worker gets a little more room.
    """
    wait_for_receipts(job, stage_dir, units)
    starved: set[int] = set()
    while job.is_running() and not any("MemoryError" in text for text in events.failures()):
        for worker in cluster.python_workers():
            with suppress(psutil.NoSuchProcess):
                if worker.pid not in starved and _is_at_work(worker, least_cpu_s):
                    headroom = _HEADROOM_MB[len(starved) % len(_HEADROOM_MB)] * 1_000_000
                    limit = worker.memory_info().vms + headroom
                    worker.rlimit(psutil.RLIMIT_AS, (limit, limit))
                    starved.add(worker.pid)
        time.sleep(0.05)
    code, failures = job.wait(), events.failures()
    ends = [_end_of(text) for text in failures]
    outcome.said = f"tasks ended with: {', '.join(sorted(set(ends)))}" if ends else ""
    outcome.require_fault(
        any("MemoryError" in text for text in failures), f"no MemoryError: {outcome.said or 'no failure'}"
    )
    outcome.require(code == 0, f"exit code {code}: {job.told()}")


def _is_at_work(worker: psutil.Process, least_cpu_s: float) -> bool:
    """Busy, and not with loading libraries, which takes address space all the time."""
    before = worker.memory_info().vms
    return bool(_busy([worker])) and worker.cpu_times().user > least_cpu_s and worker.memory_info().vms <= before


def _end_of(failure: str) -> str:
    """The line of a task's failure that says what it was."""
    named = [line for line in failure.splitlines() if "Error" in line and line[:1] not in (" ", "\t")]
    return (named or failure.splitlines() or [""])[-1][:160]


# --- a machine that is slow ------------------------------------------------------------------------------------------


def slow_node(ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """A machine hangs in the middle of a unit, a copy overtakes it, and it wakes and writes after the commit."""
    outcome, out, events = Outcome("slow-node"), ground.copy("slow-node"), Events(cluster)
    stage_dir, slow = out / STAGE_4C, HOSTS[1]
    job = submit_4c(
        cluster,
        out,
        network_timeout="600s",  # slow, not lost
        speculation="true",
        speculation_interval="200ms",
        speculation_quantile=0.3,
        speculation_multiplier=1.5,
    )
    wait_for_receipts(job, stage_dir, UNITS_BEFORE_THE_FAULT)
    outcome.fault = "a machine stopped (SIGSTOP) in the middle of a unit, woken after the commit; speculation on"
    python, others = _put_to_sleep(cluster, slow)
    try:
        outcome.require(job.wait() == 0, f"exit code {job.wait()}: {job.told()}")
        outcome.require(events.speculative(), "no task was copied")
        outcome.require((stage_dir / "_SUCCESS").exists(), "no _SUCCESS while the machine slept")
        committed = _files(stage_dir)
        _signal(python, "resume")
        with suppress(ClusterError):
            wait_until("the rest of its unit", lambda: _late(stage_dir, committed, "_receipts/"), limit_s=30)
        outcome.require_fault(_late(stage_dir, committed, ""), "the machine that woke wrote nothing: no fault happened")
    finally:
        _signal(python + others, "resume")
        cluster.heal()
    return _finished(outcome, ground, out, events, [job])


def _put_to_sleep(cluster: StandaloneCluster, host: str) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Stop all of a machine while its Python renders; the Python workers, and the rest of it."""
    python: list[psutil.Process] = wait_until("Python renders", lambda: _busy(cluster.python_workers(host)))
    _signal(python, "suspend")
    others = [process for process in cluster.machine(host) if process not in python]
    _signal(others, "suspend")
    return python, others


def _busy(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that had a core of their own for the last moment."""
    with suppress(psutil.NoSuchProcess):
        before = [p.cpu_times().user for p in processes]
        time.sleep(0.2)
        return [p for p, s in zip(processes, before, strict=True) if p.cpu_times().user - s > 0.05]
    return []


def _signal(processes: Sequence[psutil.Process], act: str) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            getattr(process, act)()


def _files(stage_dir: Path) -> dict[str, tuple[int, int]]:
    """Final names → what tells that a file was written again."""
    files = [f for f in stage_dir.rglob("*") if f.is_file() and not f.name.startswith(".")]
    return {str(f.relative_to(stage_dir)): (f.stat().st_ino, f.stat().st_mtime_ns) for f in files}


def _late(stage_dir: Path, committed: dict[str, tuple[int, int]], prefix: str) -> list[str]:
    """Files written since the commit."""
    now = _files(stage_dir)
    return [name for name, written in now.items() if name.startswith(prefix) and committed.get(name) != written]


SCENARIOS: dict[str, Callable[[Ground, StandaloneCluster], Outcome]] = {
    "python-worker": python_worker,
    "executor": executor,
    "machine": machine,
    "driver": driver,
    "every-worker": every_worker,
    "corrupt-brick": corrupt_brick,
    "full-disk": full_disk,
    "slow-node": slow_node,
    "memory-4b": memory_4b,
    "memory-4c": memory_4c,
    "two-drivers": two_drivers,
}


def struck(name: str, ground: Ground, cluster: StandaloneCluster) -> Outcome:
    """A scenario whose fault has happened: on a busy machine its moment may be missed, then it is run anew, twice at
    most. A run that has lost a row, or shows another problem, is not run anew.
    """
    for _ in range(3):
        outcome = SCENARIOS[name](ground, cluster)
        if not outcome.missed or outcome.problems or not outcome.is_equal:
            break
        cluster.heal()
    return outcome
