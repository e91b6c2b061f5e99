"""The run directory: where each stage lies, and the run's own record of its configuration and inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dhs_pipeline.config import RunConfig
from dhs_pipeline.stage import StageError, first_difference
from dhs_pipeline.storage import Location


@dataclass(frozen=True)
class RunDir:
    """Layout of a run, the same locally and on S3."""

    where: Location

    @property
    def phase4a(self) -> Location:
        return self.where / "phase4a"

    @property
    def hosts(self) -> Location:
        return self.phase4a / "hosts"

    @property
    def manifest(self) -> Location:
        return self.phase4a / "manifest"

    @property
    def phase4b(self) -> Location:
        return self.where / "phase4b"

    @property
    def cutouts(self) -> Location:
        return self.phase4b / "cutouts"

    def phase4c(self, generation: str) -> Location:
        return self.where / "phase4c" / generation

    def phase4p5(self, generation: str) -> Location:
        return self.where / "phase4p5" / generation

    @property
    def report(self) -> Location:
        return self.where / "report"

    @property
    def spark_events(self) -> Location:
        """Spark's event logs of local sessions, for a history server."""
        return self.where / "_spark_events"

    @property
    def record(self) -> Location:
        return self.where / "run.json"

    def start(self, config: RunConfig, *, force: bool) -> None:
        """Claim the folder for a run of this configuration.

        Raises
        ------
        StageError
            If the folder holds something else, or a run of another configuration and ``force`` is not set.
        """
        self.where.make_dir()
        self.where.check_writable()
        tree = config.model_dump(mode="json")
        if not self.record.exists():
            if self.where.files(recursive=True) and not force:
                raise StageError(f"{self.where}: exists and is not a run directory; choose another OUT")
        elif not force and (key := first_difference(self.record.read_json()["config"], tree)) is not None:
            raise StageError(
                f"{self.where}: exists and holds a run of another configuration (first difference: {key}); "
                "choose another OUT or --force"
            )
        self.record.write_json({"config": tree})

    def config(self) -> RunConfig:
        """The configuration that the run was started with.

        Raises
        ------
        StageError
            If this is not a run directory, or that of a version with another configuration.
        """
        if not self.record.exists():
            raise StageError(f"{self.where}: not a run directory (no run.json); start with stage 4a or `dhs run`")
        record: dict[str, Any] = self.record.read_json()
        try:
            return RunConfig.model_validate(record["config"])
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise StageError(
                f"{self.record}: not a configuration of this version ({key}: {first['msg']}); start the run anew"
            ) from error

    def generations(self) -> list[str]:
        """Generations that 4c has finished, by name."""
        found = (self.where / "phase4c").folders()
        return [name for name in found if (self.phase4c(name) / "_SUCCESS").exists()]
