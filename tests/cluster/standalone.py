"""A Spark standalone cluster of real processes on this machine: a master, workers on hosts of their own, spark-submit.

Linux answers on all of 127.0.0.0/8, so workers on 127.0.0.2 and 127.0.0.3 are two hosts to Spark (copies of a slow
task never go to the host that runs it). Ports are the system's choice. Every process carries a mark in its
environment, by which those that lost their parent are found, and is ended by its id.

    with StandaloneCluster(folder) as cluster:
        job = cluster.submit("stage_4c_inject.py", "--out", out, "--generation", "gen7")
        cluster.python_workers()[0].kill()
        assert job.wait() == 0, job.told()
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dhs_pipeline.session import _with_spark_options, find_java_home

REPOSITORY = Path(__file__).resolve().parents[2]
HOSTS = ("127.0.0.2", "127.0.0.3")
_MARK = "DHS_TEST_CLUSTER"
_START_LIMIT_S = 120.0
_POLL_S = 0.05
_SMALL_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""For JVMs that live for a minute: fewer threads, a quicker start."""


class ClusterError(RuntimeError):
    """The cluster is not in the state that was waited for; the message holds the end of its logs."""


def wait_until(what: str, state: Callable[[], Any], *, limit_s: float = _START_LIMIT_S) -> Any:
    """The first true value of ``state``; ClusterError if there is none within ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if value := state():
            return value
        time.sleep(_POLL_S)
    raise ClusterError(f"{what}: not within {limit_s:.0f} s")


@dataclass
class Logged:
    """A process with its output in a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def is_running(self) -> bool:
        return self.process.poll() is None

    def found(self, pattern: str) -> str | None:
        """Group 1 of the first match in the log; ClusterError if the process has ended without it."""
        if match := re.search(pattern, self.text()):
            return match.group(1)
        if not self.is_running():
            raise ClusterError(f"{self.name} ended with {self.process.returncode}: {self.text()[-2000:]}")
        return None


@dataclass
class Submission(Logged):
    """A job given to spark-submit in client mode: the driver runs here."""

    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    def wait(self, limit_s: float = 600.0) -> int:
        """Exit code of the job."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{self.name}: not done within {limit_s:.0f} s: {self.text()[-2000:]}") from error
        self.ended = self.ended or time.monotonic()
        return code

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started

    def kill_driver(self) -> None:
        """SIGKILL to the JVM and the Python of the driver, as when its machine goes."""
        kill_tree(self.pid)
        self.wait(30)

    def told(self) -> list[str]:
        """What the ``dhs`` command itself said on stderr."""
        return [line for line in self.text().splitlines() if line.startswith("dhs: ")]


class StandaloneCluster:
    """A master on 127.0.0.1 and one worker with one core on each of ``hosts``.

    Parameters
    ----------
    folder
        Made; holds logs, work folders and event logs.
    hosts
        Loopback addresses of the workers.
    executor_memory
        Heap of an executor.
    prefix
        Put before every command: ``nsenter`` into another mount namespace, for example.
    environment
        Added to the environment of every process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hosts: Sequence[str] = HOSTS,
        executor_memory: str = "600m",
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.hosts = tuple(hosts)
        self.workers: dict[str, Logged] = {}
        self._executor_memory = executor_memory
        self._prefix = list(prefix)
        self._mark = uuid.uuid4().hex
        self._given = dict(environment or {})
        self._count = 0

    def __enter__(self) -> StandaloneCluster:
        for name in ("logs", "work", "events", "conf", "numba"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._environment = self._make_environment()
        try:
            self._start_master()
            self.heal()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """End everything that carries the mark, the workers first so that they start nothing anew."""
        for process in [*(w.process for w in self.workers.values()), getattr(self, "master", None)]:
            if process is not None:
                process = getattr(process, "process", process)
                process.kill()
                process.wait()
        wait_until("processes of the cluster end", self._kill_marked, limit_s=30)

    # --- starting ------------------------------------------------------------------------------------------------

    def _make_environment(self) -> dict[str, str]:
        """What daemons, drivers and executors (they inherit it from their worker) find."""
        import pyspark

        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))}
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        return {
            **inherited,
            **dict.fromkeys(threads, "1"),
            _MARK: self._mark,
            "SPARK_HOME": str(Path(pyspark.__file__).parent),
            "SPARK_CONF_DIR": str(self.folder / "conf"),
            "SPARK_LOCAL_DIRS": str(self.folder / "work"),
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": _SMALL_JVM,
            "SPARK_MASTER_OPTS": "-Dspark.worker.timeout=600",  # seconds; a stopped machine is slow, not lost
            "JAVA_HOME": _with_spark_options(Path(find_java_home())),
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "pipeline"), *_path_of(inherited)]),
            "NUMBA_CACHE_DIR": inherited.get("NUMBA_CACHE_DIR", str(self.folder / "numba")),
            **self._given,
        }

    def _start(self, name: str, command: Sequence[str], host: str) -> tuple[subprocess.Popen[bytes], Path]:
        self._count += 1
        log = self.folder / "logs" / f"{self._count:03d}-{name}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*self._prefix, *command],
                env={**self._environment, "SPARK_LOCAL_IP": host},
                cwd=self.folder / "work",
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return process, log

    def _spark(self, script: str) -> str:
        return str(Path(self._environment["SPARK_HOME"]) / "bin" / script)

    def _start_master(self) -> None:
        command = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        self.master = Logged("master", *self._start("master", [self._spark("spark-class"), *command], "127.0.0.1"))
        port = wait_until("master", lambda: self.master.found(r"'sparkMaster' on port (\d+)"))
        self.url = f"spark://127.0.0.1:{port}"
        # the address in the log is a name where the machine has one for it; the port is what counts
        self._ui = "http://127.0.0.1:" + wait_until(
            "master's page", lambda: self.master.found(r"MasterUI' on port (\d+)")
        )
        wait_until("master is alive", lambda: self.state()["status"] == "ALIVE")

    def heal(self) -> None:
        """Start the workers that are not there (any more); returns when the master counts all of them."""
        for host in self.hosts:
            if host not in self.workers or not self.workers[host].is_running():
                self._start_worker(host)
        wait_until("workers are registered", lambda: sorted(self.alive_hosts()) == sorted(self.hosts))

    def _start_worker(self, host: str) -> None:
        options = ["--host", host, "--port", "0", "--webui-port", "0", "--cores", "1", "--memory", "1g"]
        work = ["--work-dir", str(self.folder / "work"), self.url]
        command = [self._spark("spark-class"), "org.apache.spark.deploy.worker.Worker", *options, *work]
        self.workers[host] = Logged(f"worker {host}", *self._start(f"worker-{host}", command, host))

    # --- jobs ----------------------------------------------------------------------------------------------------

    def submit(self, job: str, *arguments: object, conf: Mapping[str, object] | None = None) -> Submission:
        """``spark-submit jobs/<job> <arguments>``; returns at once."""
        settings = {
            "spark.executor.memory": self._executor_memory,
            "spark.executor.cores": 1,
            "spark.driver.memory": "512m",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.extraJavaOptions": _SMALL_JVM,
            "spark.executor.extraJavaOptions": _SMALL_JVM,
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": (self.folder / "events").as_uri(),
            "spark.eventLog.rolling.enabled": "false",
            "spark.eventLog.compress": "false",
            **(conf or {}),
        }
        options = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
        script = str(REPOSITORY / "jobs" / job)
        command = [self._spark("spark-submit"), "--master", self.url, *options, script, *map(str, arguments)]
        return Submission(job, *self._start(Path(job).stem, command, "127.0.0.1"))

    # --- looking -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The master's own page as JSON."""
        with suppress(OSError), urllib.request.urlopen(f"{self._ui}/json/", timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
            return state
        return {"status": "silent", "workers": [], "activeapps": []}

    def alive_hosts(self) -> list[str]:
        return [worker["host"] for worker in self.state()["workers"] if worker["state"] == "ALIVE"]

    def executors(self, host: str | None = None) -> list[psutil.Process]:
        """JVMs of executors, of one host or all."""
        return [p for p, command in self._marked_commands() if _is_executor(command, host)]

    def python_daemons(self, host: str | None = None) -> list[psutil.Process]:
        return [child for executor in self.executors(host) for child in _children(executor)]

    def python_workers(self, host: str | None = None) -> list[psutil.Process]:
        """Python workers: children of the daemon that an executor starts."""
        return [worker for daemon in self.python_daemons(host) for worker in _children(daemon)]

    def machine(self, host: str) -> list[psutil.Process]:
        """All of one host: the worker's JVM, its executors, their Python."""
        worker = psutil.Process(self.workers[host].pid)
        return [worker, *worker.children(recursive=True)]

    def kill_machine(self, host: str) -> None:
        """SIGKILL to all of one host at once: the machine is gone."""
        kill_tree(self.workers[host].pid)
        self.workers[host].process.wait()

    def events(self) -> Iterator[dict[str, Any]]:
        """All events of all applications so far."""
        for log in sorted((self.folder / "events").iterdir()):
            for line in log.read_text(errors="replace").splitlines():
                with suppress(json.JSONDecodeError):  # the last line of a killed driver
                    yield json.loads(line)

    def task_starts(self) -> int:
        """Tasks that executors began.

        The event log of a killed driver lacks its last entries, the log of a killed executor too: the longer counts.
        """
        begun = Counter[str]()
        for log in (self.folder / "work").glob("app-*/*/stderr"):
            begun[log.parts[-3]] += log.read_text(errors="replace").count(" Executor: Running task ")
        for log in (self.folder / "events").iterdir():
            told = log.read_text(errors="replace").count('"Event":"SparkListenerTaskStart"')
            application = log.name.removesuffix(".inprogress")
            begun[application] = max(begun[application], told)
        return begun.total()

    # --- ending --------------------------------------------------------------------------------------------------

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self._mark and process.pid != os.getpid():
                    yield process

    def _marked_commands(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        for process in self._marked():
            with suppress(psutil.Error):
                yield process, process.cmdline()

    def _kill_marked(self) -> bool:
        """True when nothing is left."""
        left = [p for p in self._marked() if _status(p) != psutil.STATUS_ZOMBIE]
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        return not left


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all below it. Stopped first, so that none of them notices the death of another."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
        for act in ("suspend", "kill"):
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    getattr(process, act)()


def _is_executor(command: Sequence[str], host: str | None) -> bool:
    if "org.apache.spark.executor.CoarseGrainedExecutorBackend" not in command:
        return False
    return host is None or command[command.index("--hostname") + 1] == host


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [child for child in process.children() if _status(child) != psutil.STATUS_ZOMBIE]
    return []


def _status(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return str(process.status())
    return psutil.STATUS_ZOMBIE


def _path_of(environment: Mapping[str, str]) -> list[str]:
    return [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
