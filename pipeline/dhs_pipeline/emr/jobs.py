"""The steps of a run: one per stage, and per generation for 4c and 4p5, each with the arguments of its job file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dhs_pipeline.config import ConfigError, Generation, RunConfig, load_run_config
from dhs_pipeline.storage import Location

STAGES = ("4a", "4b", "4c", "4p5")
_JOB_FILES = {
    "4a": "stage_4a_manifest.py",
    "4b": "stage_4b_cutouts.py",
    "4c": "stage_4c_inject.py",
    "4p5": "stage_4p5_compact.py",
}
_BANK_MODES = {"cosmos": "--bank", "deep": "--deep-bank"}


@dataclass(frozen=True)
class RunOptions:
    """What the stages are told, as given on the command line."""

    out: str
    data: str | None
    parent: str | None
    bank: str | None
    deep_bank: str | None
    config: str
    overrides: tuple[str, ...]
    artifacts: str | None
    pairing: str | None


@dataclass(frozen=True)
class Job:
    """One step: a job file and its arguments.

    Parameters
    ----------
    stage
        "4a", "4b", "4c" or "4p5".
    generation
        What the stage writes, as its folder is called; None for 4a and 4b.
    cost_name
        The stage as the cost model calls it: "4a", "4b", "4c gen7", "4p5".
    rows_per_task
        Rows that a task of the manifest gives: members of its pair, where there are pairs.
    job_file
        Its name in jobs/.
    arguments
        Of the job file, one list element each: nothing is quoted and nothing split.
    """

    stage: str
    generation: str | None
    cost_name: str
    rows_per_task: int
    job_file: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.stage} {self.generation}" if self.generation else self.stage


def split_names(texts: Sequence[str]) -> list[str]:
    """``["gen5,gen7", "uber"]`` → ``["gen5", "gen7", "uber"]``: a comma or an option of its own, both are meant."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def build_jobs(options: RunOptions, stages: Sequence[str], generations: Sequence[str]) -> list[Job]:
    """The steps in the order in which they need each other.

    Parameters
    ----------
    stages
        Of :data:`STAGES`, in any order.
    generations
        For 4c and 4p5; empty takes those of the run configuration.

    Raises
    ------
    ConfigError
        If a stage or generation is unknown, or lacks what it reads. Said before anything is paid for.
    """
    unknown = sorted(set(stages) - set(STAGES))
    if unknown or not stages:
        raise ConfigError(f"--stages {','.join(unknown) or '(none)'}: the stages are {','.join(STAGES)}")
    if options.config.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"--config {options.config}: a file of this machine is not on the cluster; put it into conf/run, make the "
            "bundle again, and give its name"
        )
    config = load_run_config(options.config, options.overrides)
    for path in (options.out, options.data, options.parent, options.bank, options.deep_bank):
        if path is not None and not Location.of(path).is_s3:
            raise ConfigError(f"{path}: a cluster reads and writes s3:// only")
    names = list(generations) or [generation.name for generation in config.generations]
    jobs: list[Job] = []
    if "4a" in stages:
        jobs.append(_manifest(options))
    if "4b" in stages:
        jobs.append(_job("4b", None, "4b", options, "--data", _needed(options.data, "--data", "4b")))
    if "4c" in stages:
        jobs += [_injection(options, config, name) for name in names]
    if "4p5" in stages:
        for name in names:
            jobs.append(_compaction(options, _written(options, config, name)))
    return jobs


def _job(stage: str, written: Generation | None, cost_name: str, options: RunOptions, *arguments: str) -> Job:
    members = 1 if written is None or written.pairing is None else written.pairing.members
    name = None if written is None else written.name
    return Job(stage, name, cost_name, members, _JOB_FILES[stage], ("--out", options.out, *arguments, "--quiet"))


def _manifest(options: RunOptions) -> Job:
    parent = _needed(options.parent, "--parent", "4a")
    overrides = [argument for override in options.overrides for argument in ("--set", override)]
    return _job("4a", None, "4a", options, "--parent", parent, "--config", options.config, *overrides)


def _injection(options: RunOptions, config: RunConfig, name: str) -> Job:
    given = {"cosmos": options.bank, "deep": options.deep_bank}
    modes = {source.mode for source in config.generation(name).sources} & set(given)
    banks: list[str] = []
    for mode in sorted(modes):
        banks += [_BANK_MODES[mode], _needed(given[mode], _BANK_MODES[mode], f"4c {name}")]
    extra = ["--artifacts", options.artifacts] if options.artifacts else []
    extra += ["--pairing", options.pairing] if options.pairing else []
    written = _written(options, config, name)
    return _job("4c", written, f"4c {name}", options, "--generation", name, *banks, *extra)


def _compaction(options: RunOptions, written: Generation) -> Job:
    return _job("4p5", written, "4p5", options, "--generation", written.name)


def _written(options: RunOptions, config: RunConfig, name: str) -> Generation:
    """The generation as 4c writes it: its own, or under other artifacts, or in pairs."""
    generation = config.generation(name)
    if options.artifacts:
        generation = generation.with_artifacts(options.artifacts)
    if options.pairing:
        generation = generation.with_pairing(options.pairing)
    return generation


def _needed(value: str | None, option: str, stage: str) -> str:
    if value is None:
        raise ConfigError(f"stage {stage} needs {option}")
    return value
