"""Paired generations through 4c, 4p5 and the wide layout: what is in a pair, and what it must equal."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from small_run import NASTY, NO_BANKS, SETTINGS, InProcessSpark, make_run

from dhs_gen.paired_controls.kinds import NegativeKind, SampleKind, member_id, negative_kind
from dhs_gen.stamps import read_stamp
from dhs_gen.validation.quality_checks import validate_parquet_stamps
from dhs_pipeline import show
from dhs_pipeline.cli import main
from dhs_pipeline.compact import run_compaction
from dhs_pipeline.compare import compare
from dhs_pipeline.config import Pairing, RunConfig
from dhs_pipeline.digest import digest_path
from dhs_pipeline.injection import Renderer, list_shards, read_shard, run_injection
from dhs_pipeline.report import data, page, plots, selection, write_report
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.schemas import ARC_COLUMNS, COMPACTED, HOST_COLUMNS, METRICS, STAMPS, TASK, WIDE, wide_schema
from dhs_pipeline.stage import StageError
from dhs_pipeline.storage import Location
from dhs_pipeline.wide import write_wide

Made = tuple[RunDir, RunConfig]

# Two parts of two hosts. The first part lies in one fold; the fourth host has no cutout.
HOSTS = {"a": None, "bb": None, "ccc": None, "dddd": NASTY}
FOLD = {"region_fold": 0, "psfdepth_r_mag": 24.0}
HOST_COLUMNS_OF = {
    "a": FOLD,
    "bb": FOLD | {"mag_r": 20.1},
    "ccc": FOLD | {"region_fold": 2},
    "dddd": {"region_fold": 3},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """gen7 alone, its controls, and gen7 in the three pairings."""
    run, config = make_run(
        tmp_path_factory.mktemp("pairs") / "run", hosts=HOSTS, settings=SETTINGS, host_columns=HOST_COLUMNS_OF
    )
    for name in ("prime", "matched_host"):
        inject_paired(run, config, name)
        run_compaction(InProcessSpark(), run, f"gen7_{name}", config, partitions=None, force=False, progress=False)
    return run, config


def inject_paired(run: RunDir, config: RunConfig, pairing: str, spark: Any = None, **schedule: Any) -> dict[str, Any]:
    generation = config.generation("gen7").with_pairing(pairing)
    schedule = {"partitions": None, "force": False, "progress": False} | schedule
    return run_injection(spark or InProcessSpark(), run, generation, NO_BANKS, config, **schedule)


def rows_of(run: RunDir, generation: str, table: str = "stamps") -> list[dict[str, Any]]:
    """All rows in the order of files and rows, with the file of each."""
    files = (run.phase4c(generation) / table).files(".parquet")
    return [row | {"file": file.name} for file in files for row in file.read_table().to_pylist()]


def by_id(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["task_id"]: row for row in rows}


def members(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Pair id → its rows in the order of the file."""
    pairs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault(row["pair_id"], []).append(row)
    return pairs


def manifest(run: RunDir) -> list[dict[str, Any]]:
    return [row for file in run.manifest.files(".parquet") for row in file.read_table().to_pylist()]


def test_every_positive_has_its_members_next_to_it_in_the_order_of_the_manifest(made: Made) -> None:
    run, config = made
    expected = []
    for task in manifest(run):
        wanted = (SampleKind.CONTROL,) if task["is_control"] else tuple(SampleKind)
        ids = [task["task_id"]] if task["is_control"] else [member_id(task["task_id"], kind) for kind in wanted]
        expected += [(task["task_id"], kind.value, name) for kind, name in zip(wanted, ids, strict=True)]
    for table, schema in (("stamps", STAMPS), ("metrics", METRICS)):
        rows = rows_of(run, "gen7_prime", table)
        assert [(r["pair_id"], r["sample_kind"], r["task_id"]) for r in rows] == expected
        for file in (run.phase4c("gen7_prime") / table).files(".parquet"):
            assert pq.read_schema(file.uri).equals(schema, check_metadata=True)
    weights = config.generation("gen7").with_pairing("prime").pairing.negatives.weights
    for row in rows:
        is_negative = row["sample_kind"] == "negative"
        assert row["negative_kind"] == (negative_kind(row["pair_id"], weights) if is_negative else None)


def test_the_stage_counts_tasks_and_members(made: Made) -> None:
    run, _ = made
    rows = rows_of(run, "gen7_prime", "metrics")
    summary = (run.phase4c("gen7_prime") / "_stage.json").read_json()
    assert summary["rows"] == len(rows)
    assert summary["manifest_rows"] == len(manifest(run))
    assert summary["rows_by_sample_kind"] == Counter(r["sample_kind"] for r in rows)
    assert summary["rows_by_negative_kind"] == Counter(r["negative_kind"] for r in rows if r["negative_kind"])
    assert sum(summary["rows_by_status"].values()) == len(rows)
    plain = (run.phase4c("gen7") / "_stage.json").read_json()
    assert plain["rows"] == plain["manifest_rows"] == sum(plain["rows_by_sample_kind"].values())


def test_positives_are_those_of_the_generation_and_controls_those_of_control(made: Made) -> None:
    run, _ = made
    alone, control = by_id(rows_of(run, "gen7")), by_id(rows_of(run, "control"))
    positives = controls = 0
    for row in rows_of(run, "gen7_prime"):
        twin = {"positive": alone, "control": control}.get(row["sample_kind"], {}).get(row["pair_id"])
        if twin is None:
            continue
        positives += row["sample_kind"] == "positive"
        controls += row["sample_kind"] == "control"
        own = {"gen_variant", "task_id", "file", "sample_kind"}
        assert {n: v for n, v in row.items() if n not in own} == {n: v for n, v in twin.items() if n not in own}
    assert min(positives, controls) >= 24


def test_members_of_a_pair_differ_by_their_light_alone(made: Made) -> None:
    pairs = [p for p in members(rows_of(made[0], "gen7_prime")).values() if len(p) == 3 and p[0]["cutout_ok"]]
    kinds = set()
    for positive, control, negative in pairs:
        assert (positive["arc_injected"], control["arc_injected"], negative["arc_injected"]) == (1, 0, 0)
        assert (control["source_mode"], negative["source_mode"]) == ("none", "hybrid")
        for name in (n for n in TASK.names if n != "task_id"):
            assert positive[name] == control[name] == negative[name]
        stamps = [read_stamp(row["stamp_npz"]) for row in (positive, control, negative)]
        assert not stamps[1]["arc_r"].any()
        assert stamps[2]["arc_r"].sum() > 0
        assert (stamps[2]["arc_r"] != stamps[0]["arc_r"]).any()
        dark = stamps[2]["arc_r"] == 0
        assert (stamps[2]["image_r"][dark] == stamps[1]["image_r"][dark]).all()
        kinds.add(negative["negative_kind"])
    assert len(kinds) >= 3


def test_a_failed_host_fails_all_members(made: Made) -> None:
    rows = [r for r in rows_of(made[0], "gen7_prime") if r["host_id"] == "dddd"]
    assert {(r["status"], r["message"], r["cutout_ok"], r["stamp_npz"]) for r in rows} == {
        ("FILE_MISSING", NASTY, 0, None)
    }
    assert {r["sample_kind"] for r in rows} == {"positive", "control", "negative"}


def test_a_source_that_cannot_be_made_fails_its_own_side(made: Made) -> None:
    run, config = made
    shard = list_shards(run)[0]
    tasks = read_shard(shard)
    rows = tasks.to_pylist()
    victim = next(i for i, row in enumerate(rows) if not row["is_control"])
    rows[victim] |= {"src_reff_arcsec": 0.0}
    renderer = Renderer(config.generation("gen7").with_pairing("prime"), NO_BANKS, config)
    changed = pa.Table.from_pylist(rows, schema=tasks.schema)
    after = renderer.render(changed, run.cutouts / shard.part).to_pylist()
    before = by_id(rows_of(run, "gen7_prime"))
    own = [r for r in after if r["pair_id"] == rows[victim]["task_id"]]
    assert [r["status"] for r in own] == ["TASK_INVALID", "OK", "TASK_INVALID"]
    assert own[1]["stamp_npz"] == before[own[1]["task_id"]]["stamp_npz"]
    assert own[0]["sample_kind"] == "positive"
    for row in (r for r in after if r["pair_id"] != rows[victim]["task_id"]):
        assert row["stamp_npz"] == before[row["task_id"]]["stamp_npz"]


def test_artifacts_of_a_pair_are_the_same(made: Made) -> None:
    run, config = made
    shard = list_shards(run)[0]
    tasks = read_shard(shard).slice(0, 4)
    generation = config.generation("gen7").with_artifacts("strong")
    generation = generation.model_copy(update={"pairing": config.generation("gen7").with_pairing("prime").pairing})
    rows = Renderer(generation, NO_BANKS, config).render(tasks, run.cutouts / shard.part).to_pylist()
    names = [n for n in STAMPS.names if n.startswith("artifact_")]
    pairs = [pair for pair in members(rows).values() if len(pair) > 1]
    assert pairs
    for pair in pairs:
        assert len({json.dumps([row[n] for n in names]) for row in pair}) == 1
        assert pair[0]["artifact_jitter_x_pix"] is not None


def test_matched_controls_lie_on_the_other_host(made: Made) -> None:
    run, _ = made
    hosts = by_host([row for file in run.hosts.files(".parquet") for row in file.read_table().to_pylist()])
    plain = {r["host_id"]: r for r in rows_of(run, "control") if r["cutout_ok"]}
    wanted = {"a": "bb", "bb": "a"}
    for positive, control in (p for p in members(rows_of(run, "gen7_matched_host")).values() if len(p) == 2):
        assert (positive["sample_kind"], control["sample_kind"]) == ("positive", "control")
        assert control["is_control"] == 1
        assert {control[n] for n in ARC_COLUMNS} == {None}
        assert control["bandset"] == positive["bandset"]
        host = control["host_id"]
        assert {n: control[n] for n in HOST_COLUMNS} == {n: hosts[host][n] for n in HOST_COLUMNS}
        if positive["host_id"] in wanted:
            assert (host, control["status"]) == (wanted[positive["host_id"]], "OK")
            assert control["region_fold"] == positive["region_fold"]
            assert control["stamp_npz"] == plain[host]["stamp_npz"]
        elif positive["host_id"] == "ccc":
            assert (positive["status"], control["status"], host) == ("OK", "NO_MATCHED_HOST", "ccc")
            assert control["message"] == "no other host with a cutout in region_fold 2"
        else:
            assert (positive["status"], control["status"], control["message"]) == ("FILE_MISSING",) * 2 + (NASTY,)


def by_host(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["host_id"]: row for row in rows}


class SplitSpark(InProcessSpark):
    """Runs the units in as many pieces as asked for, the last first, each with a worker of its own."""

    def parallelize(self, units: Sequence[Any], slices: int) -> Any:
        def map_partitions(work: Callable[[Iterator[Any]], Iterable[Any]]) -> Any:
            pieces = [units[i::slices] for i in range(slices)][::-1]
            return SimpleNamespace(collect=lambda: [r for piece in pieces for r in work(iter(piece))])

        return SimpleNamespace(mapPartitions=map_partitions)


@pytest.mark.parametrize("pairing", ["prime", "matched_host"])
def test_partitions_do_not_change_a_byte(made: Made, tmp_path: Path, pairing: str) -> None:

    run, config = made
    for folder in ("run.json", "phase4a", "phase4b"):
        source, target = Path((run.where / folder).uri), tmp_path / "copy" / folder
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    copy = RunDir(Location.of(tmp_path / "copy"))
    inject_paired(copy, config, pairing, SplitSpark(), partitions=3)
    files = (run.phase4c(f"gen7_{pairing}") / "stamps").files(".parquet")
    assert len(files) > 3
    for file in files:
        assert (copy.phase4c(f"gen7_{pairing}") / "stamps" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("generation", ["gen7_prime", "gen7_matched_host"])
def test_compaction_keeps_pairs_together(made: Made, generation: str) -> None:
    out = made[0].phase4p5(generation)
    assert digest_path(out) == digest_path(made[0].phase4c(generation) / "stamps")
    where: dict[str, set[str]] = {}
    splits = set()
    for file in out.files(".parquet", recursive=True):
        ids = file.read_table(["pair_id"]).column("pair_id").to_pylist()
        order = [i for i, previous in zip(ids, [None, *ids], strict=False) if i != previous]
        assert len(order) == len(set(order))  # neighbours
        splits.add(file.uri.split("region_split=")[1].split("/")[0])
        for pair_id in order:
            where.setdefault(pair_id, set()).add(file.uri)
    assert {len(files) for files in where.values()} == {1}
    assert len(splits) > 1


def test_wide_rows_are_the_pairs(made: Made, tmp_path: Path) -> None:
    run, _ = made
    summary = write_wide(run.phase4p5("gen7_prime"), Location.of(tmp_path / "wide"), force=False)
    rows = rows_of(run, "gen7_prime")
    pairs = {i: p for i, p in members(rows).items() if len(p) == 3}
    wide = ds.dataset(tmp_path / "wide", partitioning="hive").to_table().to_pylist()
    assert [r["task_id"] for r in wide] != []
    assert {r["task_id"] for r in wide} == pairs.keys()
    assert summary["rows"] == len(wide) == len(pairs)
    assert summary["rows_left_out"] == {"not_paired": len(rows) - 3 * len(pairs)}
    for row in wide:
        positive, control, negative = pairs[row["pair_id"]]
        assert (row["ctrl_stamp_npz"], row["ctrl_status"]) == (control["stamp_npz"], control["status"])
        assert (row["neg_stamp_npz"], row["neg_status"]) == (negative["stamp_npz"], negative["status"])
        assert row["negative_kind"] == negative["negative_kind"] is not None
        same = [n for n in STAMPS.names if n not in ("region_split", "negative_kind")]
        assert {n: row[n] for n in same} == {n: positive[n] for n in same}
    failed = [r for r in wide if r["host_id"] == "dddd"]
    assert failed
    assert all(r["stamp_npz"] is r["ctrl_stamp_npz"] is r["neg_stamp_npz"] is None for r in failed)
    for split in ("train", "test"):
        narrow = (run.phase4p5("gen7_prime") / f"region_split={split}").files(".parquet")
        files = Location.of(tmp_path / "wide" / f"region_split={split}").files(".parquet")
        assert [f.name for f in files] == [f.name for f in narrow]
        assert pq.read_schema(files[0].uri).equals(wide_schema(COMPACTED, with_negatives=True), check_metadata=True)
        order = [t for f in narrow for t in f.read_table().to_pylist() if t["sample_kind"] == "positive"]
        assert [r["task_id"] for f in files for r in f.read_table().to_pylist()] == [t["task_id"] for t in order]


def test_wide_of_one_side_failed_and_without_negatives(made: Made, tmp_path: Path) -> None:
    run, _ = made
    out = tmp_path / "wide"
    assert main(["wide", (run.phase4c("gen7_matched_host")).uri, "--out", str(out)]) == 0
    files = Location.of(out / "stamps").files(".parquet")
    expected = [n for n in WIDE.names if n not in ("negative_kind", "neg_stamp_npz", "neg_status")]
    assert pq.read_schema(files[0].uri).names == expected
    assert pq.read_schema(files[0].uri).equals(wide_schema(STAMPS, with_negatives=False), check_metadata=True)
    rows = [r for f in files for r in f.read_table().to_pylist() if r["host_id"] == "ccc"]
    assert rows
    for row in rows:
        assert row["stamp_npz"] is not None
        assert (row["ctrl_stamp_npz"], row["ctrl_status"]) == (None, "NO_MATCHED_HOST")
    written = [f.uri for f in files], [Path(f.uri).stat().st_mtime_ns for f in files]
    assert main(["wide", (run.phase4c("gen7_matched_host")).uri, "--out", str(out)]) == 0
    assert written == ([f.uri for f in files], [Path(f.uri).stat().st_mtime_ns for f in files])


def test_wide_of_what_has_no_pairs(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = made
    assert main(["wide", run.phase4p5("gen7").uri, "--out", str(tmp_path / "w")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "no pairs here" in error
    with pytest.raises(StageError, match="no stamps here"):
        write_wide(Location.of(tmp_path / "nothing"), Location.of(tmp_path / "w"), force=False)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.filter(pa.array([k != "positive" for k in t["sample_kind"].to_pylist()])), "has no positive"),
        (lambda t: t.sort_by([("sample_kind", "ascending")]), "not next to each other"),
        (lambda t: pa.concat_tables([t.slice(0, 2), t.slice(1, 1), t.slice(2)]), "two rows of kind control"),
    ],
)
def test_wide_of_a_torn_pair(made: Made, tmp_path: Path, spoil: Callable[[pa.Table], pa.Table], words: str) -> None:
    files = (made[0].phase4c("gen7_prime") / "stamps").files(".parquet")
    table = pa.concat_tables([f.read_table() for f in files])
    sizes = Counter(table["pair_id"].to_pylist())
    paired = table.filter(pa.array([sizes[i] == 3 for i in table["pair_id"].to_pylist()]))
    (tmp_path / "torn").mkdir()
    pq.write_table(spoil(paired), tmp_path / "torn" / "part-0.parquet")
    with pytest.raises(StageError, match=words):
        write_wide(Location.of(tmp_path / "torn"), Location.of(tmp_path / "w"), force=False)


def test_show_finds_members_and_renders_them_again(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(show, "_picture", lambda *_: b"a picture")
    run, config = made
    for generation, host in (("gen7_prime", "a"), ("gen7_matched_host", "bb")):
        pair = next(p for p in members(rows_of(run, generation)).values() if len(p) > 1 and p[0]["host_id"] == host)
        for row in pair:
            named = generation if row["sample_kind"] != "negative" else None  # found without being told where
            show.show_task(run, config, row["task_id"][:12], generation=named, banks=NO_BANKS, png=tmp_path / "x.png")
            out = capsys.readouterr().out
            assert "identical: the stored stamp, byte for byte" in out
            lines = dict(line.split(maxsplit=1) for line in out.splitlines() if len(line.split(maxsplit=1)) == 2)
            for name in ("task_id", "pair_id", "sample_kind", "host_id", "gen_variant"):
                assert lines[name] == row[name]
            assert lines["negative_kind"] == (row["negative_kind"] or "—")


def test_show_draws_a_negative_and_a_matched_control(made: Made, tmp_path: Path) -> None:
    run, config = made
    for generation, kind in (("gen7_prime", "negative"), ("gen7_matched_host", "control")):
        row = next(r for r in rows_of(run, generation) if r["task_id"] != r["pair_id"] and r["sample_kind"] == kind)
        png = tmp_path / f"{kind}.png"
        show.show_task(run, config, row["task_id"], generation=generation, banks=NO_BANKS, png=png)
        assert png.stat().st_size > 20_000


def test_compare_takes_positives_alone(made: Made) -> None:
    comparison = compare(made[0], ["gen7", "gen7_prime", "gen7_matched_host", "control"], 12)
    tasks = {t["task_id"] for t in manifest(made[0]) if not t["is_control"]}
    assert set(comparison.task_ids) <= tasks
    for stamps in zip(comparison.stamps["gen7"], comparison.stamps["gen7_prime"], strict=True):
        assert stamps[0] == stamps[1]
    alone = compare(made[0], ["gen7_prime"], 12)
    assert set(alone.task_ids) <= tasks


def test_validation_finds_nothing_false(made: Made, tmp_path: Path) -> None:
    run, _ = made
    for generation in ("gen7_prime", "gen7_matched_host"):
        write_wide(run.phase4p5(generation), Location.of(tmp_path / generation), force=False)
        for where in (run.phase4p5(generation).uri, str(tmp_path / generation)):
            result = validate_parquet_stamps(where)
            assert result["findings"] == {}, where
            assert result["split_leaks"]["pair"] == 0
    assert result["ctrl"]["sampled"] > 0


def test_a_pair_in_two_splits_is_found(made: Made, tmp_path: Path) -> None:
    rows = next(p for p in members(rows_of(made[0], "gen7_prime")).values() if len(p) == 3 and p[0]["cutout_ok"])
    for split, row in zip(("train", "test"), rows, strict=False):
        (tmp_path / f"region_split={split}").mkdir()
        table = pa.Table.from_pylist([{n: row[n] for n in ("task_id", "pair_id", "stamp_npz", "bandset")}])
        pq.write_table(table, tmp_path / f"region_split={split}" / "part-0.parquet")
    assert validate_parquet_stamps(str(tmp_path))["findings"] == {"split_leaks_pair": 1}


def test_the_report_tells_members_apart(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = made
    sample = data.read_sample(run, "gen7_prime", max_rows=10**6)
    alone = data.read_sample(run, "gen7", max_rows=10**6)
    assert sample.lensed.sum() == alone.lensed.sum() > 20
    assert (sample.ok & sample.tasks).sum() == alone.ok.sum()
    for band in "gr":
        of_arcs = sorted(sample.values(f"arc_snr_{band}", sample.lensed))
        assert of_arcs == sorted(alone.values(f"arc_snr_{band}", alone.lensed))
    kinds = Counter(sample.table.column("sample_kind").to_pylist())
    assert kinds["negative"] == kinds["positive"]
    assert [sample.row(p.index)["task_id"] for p in selection.random_lenses(sample)] == [
        alone.row(p.index)["task_id"] for p in selection.random_lenses(alone)
    ]
    plain = [sample.row(p.index) for p in selection.random_plain(sample)]
    assert {r["is_control"] for r in plain} == {1}
    negatives = [sample.row(p.index) for p in selection.random_negatives(sample)]
    assert {r["sample_kind"] for r in negatives} == {"negative"}
    picks = selection.random_lenses(sample)
    control = by_id(rows_of(run, "control"))
    ids = [sample.row(p.index)["task_id"] for p in picks]
    assert page._read_own_controls(run, sample, picks) == {i: control[i]["stamp_npz"] for i in ids}
    for column, lensed_only in (("mag_r", False), ("bad_pixel_frac", False), ("arc_snr_r", True)):
        counts = [outline(s, column, lensed_only=lensed_only) for s in (sample, alone)]
        assert (counts[0] == counts[1]).all()
        assert counts[0].sum() > 20
    monkeypatch.setattr(page, "distributions_png", lambda *_: b"")
    html = write_report(run).read_bytes().decode()
    assert "Hard negatives" in html
    assert f"negative&nbsp;{kinds['negative']}" in html
    assert "NO_MATCHED_HOST" in html


def outline(sample: Any, column: str, *, lensed_only: bool) -> Any:
    """Rows per bin that the report draws."""
    ax = Figure().add_subplot()
    plots._histogram(ax, [sample], column, "", lensed_only=lensed_only)
    return ax.patches[0].get_data().values


def test_a_pairing_may_have_negatives_alone(made: Made) -> None:
    run, config = made
    generation = config.generation("gen7").with_pairing("prime")
    tree = generation.pairing.model_dump(mode="json") | {"control": None}
    for kind in NegativeKind:
        tree["negatives"]["weights"] = dict.fromkeys(NegativeKind, 0.0) | {kind: 1.0}
        only = generation.model_copy(update={"pairing": Pairing.model_validate(tree)})
        shard = list_shards(run)[0]
        rows = Renderer(only, NO_BANKS, config).render(read_shard(shard).slice(0, 3), run.cutouts / shard.part)
        negatives = [r for r in rows.to_pylist() if r["sample_kind"] == "negative"]
        assert {(r["status"], r["negative_kind"]) for r in negatives} == {("OK", kind.value)}
        assert set(rows["sample_kind"].to_pylist()) <= {"positive", "negative", "control"}
