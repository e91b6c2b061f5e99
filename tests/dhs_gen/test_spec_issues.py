"""One test per issue of the code review that the generator kernels answer, named after it.

Each fails on the behaviour that the review describes. Issues of single source modules are in
test_spec_issues_sources.py.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

import dhs_gen
from dhs_gen.utils import (
    bilinear_resample,
    elliptical_moffat_kernel,
    fft_convolve2d,
    from_surface_brightness,
    gaussian_kernel,
    moffat_kernel,
    to_surface_brightness,
)
from dhs_gen.validation.quality_checks import decode_stamp_npz, validate_parquet_stamps

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "pipeline" / "dhs_gen"


def npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def bands(bandset: str) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {f"image_{b}": rng.standard_normal((64, 64)).astype(np.float32) for b in bandset}


def test_issue_1_decode_stamp_npz_reads_band_keys() -> None:
    """Not the first array of the archive for the whole stamp: all bands, in order, and both layouts."""
    arrays = bands("zgr")
    image, bandset = decode_stamp_npz(npz(**arrays))
    assert bandset == "grz"
    assert image.shape == (3, 64, 64)
    for plane, band in zip(image, bandset, strict=True):
        np.testing.assert_array_equal(plane, arrays[f"image_{band}"])
    cube = np.stack([arrays[f"image_{b}"] for b in "grz"])
    np.testing.assert_array_equal(decode_stamp_npz(npz(img=cube))[0], cube)


def test_issue_2_surface_brightness_has_a_helper_and_its_units_are_documented() -> None:
    """Flux per pixel handed to a renderer of surface brightness is 1111 times too faint at 0.03″."""
    template = np.full((4, 4), 1 / 16)
    flux_nmgy = 3.0
    sb = to_surface_brightness(template * flux_nmgy, pixscale_arcsec=0.03)
    np.testing.assert_allclose(sb, template * flux_nmgy / 0.03**2)
    assert sb.sum() * 0.03**2 == pytest.approx(flux_nmgy)
    np.testing.assert_allclose(from_surface_brightness(sb, 0.03), template * flux_nmgy)
    assert dhs_gen.to_surface_brightness is to_surface_brightness
    assert "flux per pixel" in (to_surface_brightness.__doc__ or "").lower()
    assert "template" in (to_surface_brightness.__doc__ or "")


def test_issue_2_surface_brightness_gives_lenstronomy_the_right_flux() -> None:
    light_model = pytest.importorskip("lenstronomy.LightModel.light_model")
    t = np.arange(41) - 20.0
    template = np.exp(-0.5 * (t[:, None] ** 2 + t**2) / 16)
    template /= template.sum()
    model = light_model.LightModel(["INTERPOL"])
    x, y = np.meshgrid(t * 0.03, t * 0.03)
    kwargs = [
        {
            "image": to_surface_brightness(template, 0.03),
            "amp": 1,
            "center_x": 0,
            "center_y": 0,
            "phi_G": 0,
            "scale": 0.03,
        }
    ]
    sb = model.surface_brightness(x.ravel(), y.ravel(), kwargs)
    assert sb.sum() * 0.03**2 == pytest.approx(1.0, rel=1e-3)


def test_issue_3_nothing_in_the_package_stores_float16() -> None:
    for path in PACKAGE.rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "float16" not in names, path
    image = np.full((8, 8), 1e-6, np.float16)
    assert bilinear_resample(image, 0.5, 0.5).dtype == np.float32
    assert fft_convolve2d(image, np.ones((3, 3))).dtype == np.float32
    assert decode_stamp_npz(npz(image_r=image))[0].dtype == np.float32


def test_issue_4_public_image_functions_refuse_nan_and_infinity() -> None:
    for bad in (np.nan, np.inf):
        image = np.ones((8, 8))
        image[2, 3] = bad
        with pytest.raises(ValueError, match="img must be finite"):
            bilinear_resample(image, 0.5, 0.5)
        with pytest.raises(ValueError, match="img must be finite"):
            fft_convolve2d(image, np.ones((3, 3)))
        with pytest.raises(ValueError, match="kernel must be finite"):
            fft_convolve2d(np.ones((8, 8)), image[:7, :7])


@pytest.mark.parametrize(
    "kernel",
    [gaussian_kernel, moffat_kernel, lambda fwhm_pix, **k: elliptical_moffat_kernel(fwhm_pix, 3.5, 0.1, 0.3, **k)],
    ids=["gaussian", "moffat", "elliptical"],
)
def test_issue_6_kernels_have_max_size_and_fit_the_stamp(kernel: Any) -> None:
    """145 pixels of kernel on 64 of stamp: the kernel shrinks to 63, and even 145 convolves without a crash."""
    made = kernel(5.0, size=145, max_size=64)
    assert made.shape == (63, 63)
    assert made.sum() == pytest.approx(1.0)
    assert kernel(5.0, size=33, max_size=64).shape == (33, 33)
    assert kernel(5.0, size=32).shape == (31, 31)
    stamp = np.zeros((64, 64))
    stamp[40, 20] = 1.0
    blurred = fft_convolve2d(stamp, kernel(5.0, size=145))
    assert blurred.shape == (64, 64)
    assert np.unravel_index(blurred.argmax(), blurred.shape) == (40, 20)


def test_issue_7_single_band_stamps_are_decoded_and_are_no_fault(tmp_path: Path) -> None:
    image, bandset = decode_stamp_npz(npz(**bands("r")))
    assert (image.shape, bandset) == ((1, 64, 64), "r")
    rows = [
        {"task_id": f"t{i}", "bandset": b, "cutout_ok": 1, "stamp_npz": npz(**bands(b))}
        for i, b in enumerate(["grz", "r"])
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    result = validate_parquet_stamps(str(tmp_path / "a.parquet"))
    assert result["clean"]
    assert result["bandset_counts"] == {"grz": 1, "r": 1}
    rows[0]["stamp_npz"] = rows[1]["stamp_npz"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert validate_parquet_stamps(str(tmp_path / "a.parquet"))["findings"] == {"band_mismatch": 1}


def test_issue_8_imports_are_absolute_and_work_from_a_zip(tmp_path: Path) -> None:
    """As on an executor that got the package by --py-files: no relative import, no working directory."""
    for path in PACKAGE.rglob("*.py"):
        relative = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.level]
        assert not relative, path
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for path in PACKAGE.rglob("*.py"):
            archive.write(path, path.relative_to(PACKAGE.parent))
    code = (
        f"import sys; sys.path[0] = {str(tmp_path / 'package.zip')!r}\n"
        "from dhs_gen.utils import to_surface_brightness, bilinear_resample\n"
        "from dhs_gen.validation.quality_checks import decode_stamp_npz\n"
        "import dhs_gen; assert '.zip' in dhs_gen.__file__, dhs_gen.__file__"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "NUMBA_CACHE_DIR": str(tmp_path / "numba")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_issue_8_the_package_is_declared_for_installation() -> None:
    project = (REPO / "pyproject.toml").read_text()
    assert "[build-system]" in project
    assert "pipeline/dhs_gen" in project


def test_minor_issue_bilinear_resample_conserves_flux_of_point_sources() -> None:
    """Point sampling gave 0.87 to 1.62 of the flux for 0.168 → 0.262″ and 0 to 41 times for 0.03 → 0.262″."""
    for scale in (0.168 / 0.262, 0.03 / 0.262, 0.262 / 0.168):
        sums = []
        for y in range(20, 30):
            for x in range(20, 30):
                image = np.zeros((64, 64))
                image[y, x] = 1.0
                sums.append(bilinear_resample(image, scale, scale).sum())
        np.testing.assert_allclose(sums, 1.0, atol=0.005)


def test_minor_issue_examples_have_no_hard_coded_paths() -> None:
    """Code and configuration name no bucket, no home and no machine."""
    somebodys = re.compile(r"s3[an]?://(?!bucket/)[a-z0-9]|/home/|/Users/|/mnt/(?!dhs/)|(?<!cosmo)/data/[a-z]")
    files = [p for folder in ("pipeline", "conf", "jobs", "benchmarks") for p in (REPO / folder).rglob("*")]
    found = [
        (path.name, line)
        for path in files
        if path.suffix in {".py", ".yaml"}
        for line in path.read_text().splitlines()
        if somebodys.search(line)
    ]
    assert not found
