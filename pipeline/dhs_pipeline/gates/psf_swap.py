"""psf_swap: what the classifier makes of arcs in another seeing, and whether arcs have the survey's seeing at all.

DR10's psfsize is noise-equivalent and no FWHM (:mod:`dhs_gen.psf`): arcs drawn with FWHM = psfsize are 20-25 % too
wide, which no comparison of positives among themselves shows. The contract is therefore checked three times: in the
columns, in the kernel that the columns state, and in the pixels, against arcs that are drawn with kernels solved here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.optimize import brentq

from dhs_gen.moffat import pixel_integrated_moffat
from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.reference import reference_classifier, rerenderer_of, some_pairs
from dhs_pipeline.gates.result import CannotRun, Figure, GateResult, exact, judge, reported
from dhs_pipeline.gates.statistics import mean_interval

_GATE = "psf_swap"
_FWHM_RANGE_PIX = (0.8, 20.0)
_KERNEL_SIZE_PIX = 63
"""Side on which psfsize is measured; the reference asks for at least 63."""


def psf_swap(data: GateData, config: GatesConfig) -> GateResult:
    """Change of the reference classifier's AUC with the arcs' PSF, and the PSF contract.

    Pairs with a saturated star are left out: its wings have the PSF too.

    Raises
    ------
    CannotRun
        If stamps cannot be made again, the classifier cannot be trained, or a column of the contract is missing.
    """
    rerender, limits = rerenderer_of(data), config.psf_swap
    reference = reference_classifier(data)
    starless = _without_stars(data.sample)
    pairs = starless[some_pairs(data.sample.take(starless), limits.pairs, _GATE)]
    if not pairs.size:
        raise CannotRun("every pair has a saturated star, whose wings change with the PSF")
    chosen = data.sample.take(pairs)
    ids, hosts = chosen.task_ids, chosen.host_ids
    rows, blocks = len(chosen), len(set(hosts))
    own = reference.rank(reference.score(rerender.positives(ids), pairs), pairs)
    figures = [reported("AUC with the arcs' own PSF", float(own.mean()), rows=rows, blocks=blocks)]
    for factor in limits.factors:
        swapped = rerender.positives(ids, psf_factor=factor)
        change = reference.rank(reference.score(swapped, pairs), pairs) - own
        found = mean_interval(change, hosts, config.resamples, f"{_GATE} {factor:g}")
        figures.append(
            Figure(
                f"change of AUC with the arcs' PSF x {factor:g}",
                found.value,
                found.low,
                found.high,
                f"at most {limits.max_auc_change:g} either way",
                abs(found.value) <= limits.max_auc_change,
                rows,
                blocks,
            )
        )
    figures += _columns(data, limits.max_psfsize_difference)
    figures += _stated_kernels(chosen, data, rerender.moffat_beta, limits.max_kernel_difference)
    figures += _pixels(chosen, data, limits.max_arc_difference, limits.max_sharpness_difference)
    message = "; ".join(f"PSF x {f:g}: AUC {g.value:+.3f}" for f, g in zip(limits.factors, figures[1:], strict=False))
    return judge(_GATE, figures, message)


def _without_stars(sample: PairSample) -> NDArray[np.intp]:
    if "artifact_sat_band" not in sample.pairs.column_names:
        return np.arange(len(sample))
    return np.flatnonzero(sample.pairs.column("artifact_sat_band").is_null().to_numpy())


def _columns(data: GateData, limit: float) -> list[Figure]:
    """Median of psfsize of the drawn kernels over the catalogue's, per band, over all positives of the set."""
    rows = data.rows.filter(pc.equal(data.rows.column("arc_injected"), 1))
    blocks = pc.count_distinct(rows.column("host_id")).as_py()
    figures = []
    for band in data.bandset:
        ratio = _numbers(rows, f"psfsize_used_{band}_arcsec") / _numbers(rows, f"psfsize_{band}_arcsec")
        ratio = ratio[np.isfinite(ratio)]
        if not ratio.size:
            raise CannotRun(f"no positive has both psfsize_used_{band}_arcsec and psfsize_{band}_arcsec")
        name = f"psfsize of the drawn kernel, {band}: median difference from the catalogue's"
        figures.append(exact(name, abs(float(np.median(ratio)) - 1.0), limit=limit, rows=ratio.size, blocks=blocks))
    return figures


def _stated_kernels(sample: PairSample, data: GateData, moffat_beta: Mapping[str, float], limit: float) -> list[Figure]:
    """psfsize of the Moffat of the stated FWHM against the stated psfsize, per band."""
    figures = []
    for band in data.bandset:
        fwhm, stated = (_numbers(sample.pairs, f"{n}_{band}_arcsec") for n in ("psf_fwhm_used", "psfsize_used"))
        known = np.isfinite(fwhm) & np.isfinite(stated)
        if not known.any():
            raise CannotRun(f"no positive states psf_fwhm_used_{band}_arcsec")
        beta, pix = moffat_beta[band], data.pixscale_arcsec
        found = np.array([psfsize_pix(f / pix, beta, _KERNEL_SIZE_PIX) * pix for f in fwhm[known]])
        name = f"psfsize of the Moffat of the stated FWHM, {band}: largest difference from the stated psfsize"
        worst = float(np.abs(found / stated[known] - 1.0).max())
        figures.append(exact(name, worst, limit=limit, rows=int(known.sum()), blocks=len(set(sample.host_ids))))
    return figures


def _pixels(sample: PairSample, data: GateData, max_arc_difference: float, max_sharpness: float) -> list[Figure]:
    """The arc layer against the same arcs rendered again, and against arcs with kernels that are solved here.

    Against the latter by their sharpness Σa²/(Σa)², which a wider PSF lowers and an elliptical one of the same
    noise-equivalent area does not.
    """
    rerender = rerenderer_of(data)
    rows, blocks = len(sample), len(set(sample.host_ids))
    again = rerender.arcs(sample.task_ids)
    figures = []
    if sample.arc is not None:
        scale = sample.arc.max(axis=(2, 3), keepdims=True)
        apart = np.abs(again - sample.arc) / np.where(scale > 0, scale, 1)
        name = "arc layer against arcs rendered again: largest difference over the arc's peak"
        figures.append(exact(name, float(apart.max()), limit=max_arc_difference, rows=rows, blocks=blocks))
    drawn = again if sample.arc is None else sample.arc
    pix = data.pixscale_arcsec
    wanted = rerender.arcs_by_kernel(
        sample.task_ids, sample.lens_xy_pix, lambda psfsize, beta, size: survey_kernel(psfsize / pix, beta, size)
    )
    for index, band in enumerate(data.bandset):
        ratio = sharpness(drawn[:, index]) / sharpness(wanted[:, index])
        name = f"sharpness of the arcs, {band}: median difference from arcs in the survey's PSF"
        worst = abs(float(np.nanmedian(ratio)) - 1.0)
        figures.append(exact(name, worst, limit=max_sharpness, rows=rows, blocks=blocks))
    return figures


def sharpness(arcs: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) Σa²/(Σa)² of (n, H, W) arcs: one over their noise-equivalent area in pixels. NaN without light."""
    light = arcs.astype(np.float64)
    total = light.sum(axis=(1, 2))
    return (light**2).sum(axis=(1, 2)) / np.where(total > 0, total, np.nan) ** 2


def psfsize_pix(fwhm_pix: float, beta: float, size_pix: int) -> float:
    """psfsize in pixels of the Moffat of a FWHM: 2√(2 ln 2) √(NEA/4π) with NEA = (Σp)²/Σp² on the pixel grid."""
    kernel = pixel_integrated_moffat(fwhm_pix, beta, size_pix)
    return 2.0 * math.sqrt(2.0 * math.log(2.0) * kernel.sum() ** 2 / (kernel**2).sum() / (4.0 * math.pi))


@lru_cache(maxsize=4096)
def survey_kernel(psfsize: float, beta: float, size_pix: int) -> NDArray[np.float64]:
    """(size, size) Moffat of unit sum that has a psfsize, in pixels; found by Brent's method, without a table.

    Raises
    ------
    CannotRun
        If no Moffat between 0.8 and 20 px FWHM has it.
    """
    low, high = _FWHM_RANGE_PIX
    if not psfsize_pix(low, beta, size_pix) <= psfsize <= psfsize_pix(high, beta, size_pix):
        raise CannotRun(f"no Moffat of beta {beta:g} has a psfsize of {psfsize:.2f} px")
    fwhm = brentq(lambda f: psfsize_pix(f, beta, size_pix) - psfsize, low, high, xtol=1e-6)
    kernel = pixel_integrated_moffat(fwhm, beta, size_pix)
    return kernel / kernel.sum()


def _numbers(table: pa.Table, column: str) -> NDArray[np.float64]:
    if column not in table.column_names:
        raise CannotRun(f"the set has no column {column}")
    return table.column(column).cast(pa.float64()).to_numpy(zero_copy_only=False)
