"""null_injection: a positive of no flux is a control, to the last bit.

The null is made by the positive's whole path: the same source is lensed, drawn and given its noise, and only its flux
is zero. A path that resamples, casts or shifts the host leaves its mark here and nowhere else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dhs_pipeline.config.gates import GatesConfig
from dhs_pipeline.gates.data import GateData, PairSample
from dhs_pipeline.gates.pictures import stretch
from dhs_pipeline.gates.probes import PICTURE_PROBES, Contest, indistinguishable
from dhs_pipeline.gates.reference import picture_sigma, rerenderer_of, some_pairs
from dhs_pipeline.gates.result import Figure, GateResult, Offender, exact, judge, reported
from dhs_pipeline.gates.statistics import CROSS_VALIDATED, chance_standard_error

_GATE = "null_injection"


def null_injection(data: GateData, config: GatesConfig) -> GateResult:
    """Nulls against controls: no pixel differs, and no probe tells them apart.

    Of same-host pairs the control is the stored one; of pairs with another host it is the positive's own host, rendered
    as a control. Positives rendered again must equal the stored ones, which shows that nulls come from the set's path.
    Identical pictures give an AUC of 0.5 but for the rounding of their scores; at this number of pairs the probes alone
    would see only leaks that lift it above 0.5 + k standard errors.

    Raises
    ------
    CannotRun
        If stamps cannot be made again, or too few pairs are there.
    """
    rerender = rerenderer_of(data)
    chosen = data.sample.take(some_pairs(data.sample, config.null_injection.pairs, _GATE))
    ids, blocks = chosen.task_ids, len(set(chosen.host_ids))
    positives, nulls = rerender.positives(ids), rerender.positives(ids, flux_factor=0.0)
    controls = chosen.control if chosen.same_host else rerender.controls(ids)
    figures = [
        *_identical("positives rendered again", positives, chosen.positive, blocks),
        *_identical("nulls", nulls, controls, blocks),
    ]
    sigma = picture_sigma(chosen)
    contest = Contest(stretch(controls, sigma), stretch(nulls, sigma), chosen.host_ids, chosen.host_ids)
    figures += indistinguishable(_GATE, "nulls against controls", contest, PICTURE_PROBES, config)
    offenders = [
        *_offenders(chosen, positives, chosen.positive, "rendered again it has other pixels", config),
        *_offenders(chosen, nulls, controls, "with no flux it has other pixels than its control", config),
    ]
    limit = 0.5 + config.sigmas * CROSS_VALIDATED * chance_standard_error(len(chosen), len(chosen))
    message = f"{len(chosen)} nulls equal their controls bit for bit; probes alone judge an AUC above {limit:.3f}"
    return judge(_GATE, figures, message, offenders[: config.max_offenders])


def _identical(name: str, found: NDArray[np.float32], wanted: NDArray[np.float32], blocks: int) -> list[Figure]:
    """Fraction of pixels whose bits differ, judged, and by how many last places, for whoever looks for the cause."""
    differ = _differing(found, wanted)
    places = np.abs(found.astype(np.float64) - wanted)[differ] / np.spacing(np.abs(wanted[differ])).astype(np.float64)
    worst = float(places.max()) if places.size else 0.0
    return [
        exact(f"{name}: fraction of differing pixels", float(differ.mean()), limit=0.0, rows=len(found), blocks=blocks),
        reported(f"{name}: largest difference, last places", worst, rows=len(found), blocks=blocks),
    ]


def _offenders(
    sample: PairSample, found: NDArray[np.float32], wanted: NDArray[np.float32], reason: str, config: GatesConfig
) -> list[Offender]:
    rows = np.flatnonzero(_differing(found, wanted).any(axis=(1, 2, 3)))
    return [Offender(sample.task_ids[i], reason) for i in rows[: config.max_offenders]]


def _differing(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.bool_]:
    """By their bits: −0.0 is not 0.0, and a NaN equals itself."""
    return np.ascontiguousarray(found).view(np.uint32) != np.ascontiguousarray(wanted).view(np.uint32)
