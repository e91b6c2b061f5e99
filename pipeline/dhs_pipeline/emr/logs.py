"""Logs of a step: its own (command-runner and spark-submit) and those of its driver, from where EMR copied them.

EMR copies logs to ``<LogUri>/<cluster>/`` every few minutes, gzipped: ``steps/<step>/{controller,stderr,stdout}.gz``,
``containers/<application>/<container>/{stderr,stdout}.gz`` and ``node/<instance>/bootstrap-actions/…`` (EMR Management
Guide, "View log files"). In cluster mode the driver is container 000001 of each attempt of the application.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dhs_pipeline.emr.client import EmrError
from dhs_pipeline.emr.status import ClusterView, StepView
from dhs_pipeline.storage import Location

_APPLICATION = re.compile(r"application_\d+_\d+")
_DRIVER = re.compile(r"/container_(?:e\d+_)?\d+_\d+_\d+_000001/")
BOOTSTRAP = "bootstrap"
"""What is given in place of a step to see the logs of the bootstrap action."""


@dataclass(frozen=True)
class LogFile:
    """One log, unpacked. ``title`` says whose it is."""

    title: str
    text: str

    def tail(self, lines: int) -> str:
        """The last ``lines`` lines; all of them for 0."""
        kept = self.text.splitlines()
        return "\n".join(kept[-lines:] if lines else kept)


def step_logs(cluster: ClusterView, step: StepView, streams: Sequence[str]) -> list[LogFile]:
    """Logs of a step and its driver.

    Parameters
    ----------
    streams
        Of ``stderr`` and ``stdout``.

    Raises
    ------
    EmrError
        If the cluster keeps no logs, or none has been copied yet.
    """
    root = _root(cluster)
    own = [
        LogFile(f"step {step.step_id} {name}", text)
        for name in ("controller", *streams)
        if (text := _read(root / "steps" / step.step_id / f"{name}.gz")) is not None
    ]
    applications = dict.fromkeys([*step.applications, *(a for log in own for a in _APPLICATION.findall(log.text))])
    logs = own + [log for application in applications for log in _driver_logs(root, application, streams)]
    return _some(logs, root, f"step {step.step_id} ({step.state})")


def bootstrap_logs(cluster: ClusterView, streams: Sequence[str]) -> list[LogFile]:
    """Logs of the bootstrap actions of every node that has some; EmrError if there are none."""
    root = _root(cluster)
    wanted = {f"{stream}.gz" for stream in streams}
    logs = [
        LogFile(file.uri.removeprefix(f"{root}/"), _unpacked(file))
        for file in (root / "node").files(".gz", recursive=True)
        if "/bootstrap-actions/" in file.uri and file.name in wanted
    ]
    return _some(logs, root, "the bootstrap action")


def _driver_logs(root: Location, application: str, streams: Sequence[str]) -> Iterator[LogFile]:
    files = (root / "containers" / application).files(".gz", recursive=True)
    for file in files:
        name = file.name.removesuffix(".gz")
        if name in streams and _DRIVER.search(file.uri):
            container = file.uri.rsplit("/", 2)[-2]
            yield LogFile(f"driver {container} {name}", _unpacked(file))


def _root(cluster: ClusterView) -> Location:
    if not cluster.log_uri:
        raise EmrError(f"{cluster.cluster_id} was started without a log URI: its logs went with its machines")
    return Location.of(cluster.log_uri) / cluster.cluster_id


def _some(logs: list[LogFile], root: Location, of: str) -> list[LogFile]:
    if not logs:
        raise EmrError(f"{root}: no logs of {of} there yet; EMR copies them every few minutes")
    return logs


def _read(file: Location) -> str | None:
    return _unpacked(file) if file.exists() else None


def _unpacked(file: Location) -> str:
    data = file.read_bytes()
    try:
        return gzip.decompress(data).decode("utf-8", errors="replace")
    except (OSError, EOFError) as error:
        raise EmrError(f"{file}: not a whole gzip file ({error}); EMR may still be copying it") from error
