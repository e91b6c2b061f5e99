"""Leaks planted in a clean paired run, each with the gate that has to find it.

Some are planted in the files, as a careless step between pipeline and training would; some in the code, while 4c runs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.ndimage import shift
from small_run import InProcessSpark

import dhs_gen.inject as inject_module
import dhs_gen.paired_controls.light as light_module
from dhs_gen.psf import Psf, moffat_for_psfsize, nea_psfsize
from dhs_gen.psf_kernels import moffat_kernel
from dhs_gen.stamps import encode_stamp, read_stamp
from dhs_gen.streams import stream
from dhs_pipeline.compact import run_compaction
from dhs_pipeline.config import Generation, RunConfig
from dhs_pipeline.injection import run_injection
from dhs_pipeline.rundir import RunDir
from dhs_pipeline.sources import Banks
from dhs_pipeline.storage import Location, write_parquet

Arrays = dict[str, NDArray[Any]]
Tables = dict[Path, pa.Table]
BANDS = "grz"


@dataclass(frozen=True)
class Leak:
    """One way in which a set can go wrong.

    Parameters
    ----------
    name, gate
        What it is, and the gate that has to fail.
    files
        Edits the files of a finished set, all of them at once, by path; None if the leak is in the code.
    code
        Breaks the code while 4c runs; None if the leak is in the files.
    artifacts
        Artifact profile under which the broken code runs.
    """

    name: str
    gate: str
    files: Callable[[Tables], Tables] | None = None
    code: Callable[[], AbstractContextManager[Any]] | None = None
    artifacts: str | None = None


def plant(leak: Leak, clean: RunDir, generation: Generation, banks: Banks, config: RunConfig, folder: Path) -> Location:
    """A copy of a run with the leak in it; returns the folder of its 4p5 set."""
    run = RunDir(Location.of(folder))
    if leak.files is not None:
        shutil.copytree(clean.where.uri, folder, copy_function=os.link)
        _rewrite(Path(run.phase4p5(generation.name).uri), leak.files)
        return run.phase4p5(generation.name)
    assert leak.code is not None
    made = generation if leak.artifacts is None else generation.with_artifacts(leak.artifacts)
    shutil.copytree(
        clean.where.uri, folder, copy_function=os.link, ignore=shutil.ignore_patterns("phase4c", "phase4p5")
    )
    spark: Any = InProcessSpark()
    common: dict[str, Any] = {"partitions": None, "force": False, "progress": False}
    with leak.code():
        run_injection(spark, run, made, banks, config, **common)
    run_compaction(spark, run, made.name, config, **common)
    return run.phase4p5(made.name)


def _rewrite(folder: Path, edit: Callable[[Tables], Tables]) -> None:
    tables = {f: Location.of(f).read_table() for f in sorted(folder.rglob("part-*.parquet"))}
    for path, table in edit(tables).items():
        path.unlink()
        write_parquet(table, Location.of(path), row_group_rows=512)


def in_stamps(kind: str, change: Callable[[Arrays, str], Arrays]) -> Callable[[Tables], Tables]:
    """Change the arrays of every stamp of one kind of member."""

    def edit_table(table: pa.Table) -> pa.Table:
        stamps = [
            blob if blob is None or row_kind != kind else encode_stamp(change(dict(read_stamp(blob)), task_id))
            for blob, row_kind, task_id in zip(
                *(table.column(c).to_pylist() for c in ("stamp_npz", "sample_kind", "task_id")), strict=True
            )
        ]
        return _with(table, "stamp_npz", stamps)

    return lambda tables: {path: edit_table(table) for path, table in tables.items()}


def in_column(column: str, kind: str, change: Callable[[Any], Any]) -> Callable[[Tables], Tables]:
    """Change a column in the rows of one kind of member."""

    def edit_table(table: pa.Table) -> pa.Table:
        pairs = zip(table.column(column).to_pylist(), table.column("sample_kind").to_pylist(), strict=True)
        return _with(table, column, [change(v) if k == kind and v is not None else v for v, k in pairs])

    return lambda tables: {path: edit_table(table) for path, table in tables.items()}


def _with(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    index = table.column_names.index(column)
    return table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))


def _noise_in_positives(arrays: Arrays, task_id: str) -> Arrays:
    """0.3 sigma of white noise: what a second noise call adds."""
    rng = stream(task_id, "planted_noise")
    for b in BANDS:
        weights = arrays[f"invvar_{b}"]
        sigma = 1.0 / np.sqrt(np.median(weights[weights > 0]))
        image = arrays[f"image_{b}"]
        arrays[f"image_{b}"] = (image + 0.3 * sigma * rng.standard_normal(image.shape)).astype(np.float32)
    return arrays


def _one_band_scaled(arrays: Arrays, task_id: str) -> Arrays:
    return arrays | {"image_g": (arrays["image_g"] * np.float32(1.02)).astype(np.float32)}


def _half_precision(arrays: Arrays, task_id: str) -> Arrays:
    return arrays | {f"image_{b}": arrays[f"image_{b}"].astype(np.float16) for b in BANDS}


def _resampled(arrays: Arrays, task_id: str) -> Arrays:
    """Bilinear, by half a pixel: what a re-centred control cutout looks like."""
    moved = {f"image_{b}": shift(arrays[f"image_{b}"], 0.5, order=1, mode="nearest") for b in BANDS}
    return arrays | {key: image.astype(np.float32) for key, image in moved.items()}


def _nan_in_positives(arrays: Arrays, task_id: str) -> Arrays:
    image = arrays["image_z"].copy()
    image[0, 0] = np.nan
    return arrays | {"image_z": image}


def _host_in_two_splits(tables: Tables) -> Tables:
    """Half of the pairs of the first host of one split are written to another."""
    by_split: dict[str, Path] = {}
    for path in tables:
        by_split.setdefault(path.parent.name, path)
    from_path, to_path = sorted(by_split.values())[:2]
    table = tables[from_path]
    host = table.column("host_id")[0].as_py()
    pair_ids, hosts = (table.column(c).to_pylist() for c in ("pair_id", "host_id"))
    pairs = sorted({p for p, h in zip(pair_ids, hosts, strict=True) if h == host})
    moved = np.isin(np.asarray(pair_ids), pairs[: max(1, len(pairs) // 2)])
    tables[to_path] = pa.concat_tables([tables[to_path], table.filter(pa.array(moved))])
    tables[from_path] = table.filter(pa.array(~moved))
    return tables


def _pixels_of_another_host(tables: Tables) -> Tables:
    """The control of the last host of a file is a copy of the first one's."""
    for path, table in tables.items():
        kinds, hosts = (table.column(c).to_pylist() for c in ("sample_kind", "host_id"))
        controls = [i for i, k in enumerate(kinds) if k == "control"]
        first = controls[0]
        others = [i for i in controls if hosts[i] != hosts[first]]
        if others:
            stamps = table.column("stamp_npz").to_pylist()
            stamps[others[-1]] = stamps[first]
            return tables | {path: _with(table, "stamp_npz", stamps)}
    raise AssertionError("no file holds two hosts")


def _controls_dropped(tables: Tables) -> Tables:
    """A filter on one side: the controls of some pairs are gone."""
    out = {}
    for path, table in tables.items():
        kinds, pairs = (table.column(c).to_pylist() for c in ("sample_kind", "pair_id"))
        out[path] = table.filter(
            pa.array([k != "control" or p[-1] not in "01" for k, p in zip(kinds, pairs, strict=True)])
        )
    return out


@contextmanager
def _artifacts_keyed_by_label() -> Iterator[None]:
    """The control's artifacts come from another key than the positive's."""
    real, true_inject = inject_module.draw_artifacts, inject_module.inject
    with_arc: list[bool] = []

    def inject(task: Any, cutout: Any, template: Any, *rest: Any, **named: Any) -> Any:
        with_arc.append(template is not None)
        return true_inject(task, cutout, template, *rest, **named)

    def draw(task_id: str, *rest: Any) -> Any:
        return real(task_id if with_arc[-1] else f"{task_id} control", *rest)

    with mock.patch("dhs_pipeline.injection.inject", inject), mock.patch.object(inject_module, "draw_artifacts", draw):
        yield


@contextmanager
def _arc_on_the_grid_centre() -> Iterator[None]:
    """The arc is rendered about the middle of the stamp, the row says the host's centroid."""
    real = light_module.lens_source

    def about_the_middle(lens: Any, template: Any, source_xy: Any, lens_xy: Any, grid: Any, *rest: Any) -> Any:
        middle = 0.5 * (grid.size_pix - 1)
        return real(lens, template, source_xy, (middle, middle), grid, *rest)

    with mock.patch.object(light_module, "lens_source", about_the_middle):
        yield


@contextmanager
def _psfsize_as_fwhm() -> Iterator[None]:
    """A Moffat of FWHM = psfsize instead of one whose noise-equivalent size is psfsize."""

    def wide(psfsize_arcsec: float, beta: float, pixscale_arcsec: float, size_pix: int) -> Psf:
        right = moffat_for_psfsize(psfsize_arcsec, beta, pixscale_arcsec, size_pix)
        kernel = moffat_kernel(psfsize_arcsec / pixscale_arcsec, beta, size_pix)
        return replace(
            right, kernel=kernel, psfsize_arcsec=nea_psfsize(kernel, pixscale_arcsec), fwhm_arcsec=psfsize_arcsec
        )

    inject_module._cached_moffat.cache_clear()
    with mock.patch.object(inject_module, "moffat_for_psfsize", wide):
        yield
    inject_module._cached_moffat.cache_clear()


LEAKS: Mapping[str, Leak] = {
    leak.name: leak
    for leak in (
        Leak("noise added to positives only", "pair_identity", in_stamps("positive", _noise_in_positives)),
        Leak("one band of the positives scaled by 1.02", "pair_identity", in_stamps("positive", _one_band_scaled)),
        Leak("controls resampled", "border_texture", in_stamps("control", _resampled)),
        Leak("positives in half precision", "class_balance", in_stamps("positive", _half_precision)),
        Leak("NaN in positives only", "class_balance", in_stamps("positive", _nan_in_positives)),
        Leak("host in two splits", "split_disjointness", _host_in_two_splits),
        Leak("pixels of one host under another's name", "duplicate_pixels", _pixels_of_another_host),
        Leak("controls of some pairs dropped", "pairs_complete", _controls_dropped),
        Leak(
            "psfsize column of positives 3 % larger",
            "metadata_only",
            in_column("psfsize_used_r_arcsec", "positive", lambda v: 1.03 * v),
        ),
        Leak("artifacts keyed by label", "class_balance", code=_artifacts_keyed_by_label, artifacts="mild"),
        Leak("arc about the grid's centre", "arc_centring", code=_arc_on_the_grid_centre),
        Leak("psfsize drawn as Moffat FWHM", "psf_swap", code=_psfsize_as_fwhm),
    )
}
