"""Every way a row can end, by name.

A row of the parent catalogue, of the manifest or of the stamps ends in exactly one of these. The names are
written to the tables, counted in each stage's JSON and printed at its end; nothing else invents one.
"""

from __future__ import annotations

from enum import StrEnum


class RejectReason(StrEnum):
    """Why stage 4a did not take a row of the parent catalogue as a host."""

    DUPLICATE_HOST = "DUPLICATE_HOST"
    POSITION_INVALID = "POSITION_INVALID"
    BRICKNAME_INVALID = "BRICKNAME_INVALID"
    TYPE_EXCLUDED = "TYPE_EXCLUDED"
    FLUX_NOT_FINITE = "FLUX_NOT_FINITE"
    FLUX_NOT_POSITIVE = "FLUX_NOT_POSITIVE"
    PSFSIZE_INVALID = "PSFSIZE_INVALID"
    PSFDEPTH_INVALID = "PSFDEPTH_INVALID"
    EXTINCTION_MISSING = "EXTINCTION_MISSING"
    REDSHIFT_MISSING = "REDSHIFT_MISSING"
    REDSHIFT_OUT_OF_RANGE = "REDSHIFT_OUT_OF_RANGE"
    SIGMA_V_MISSING = "SIGMA_V_MISSING"
    MAG_OUT_OF_RANGE = "MAG_OUT_OF_RANGE"
    COLOR_OUT_OF_RANGE = "COLOR_OUT_OF_RANGE"
    EBV_TOO_HIGH = "EBV_TOO_HIGH"
    PSFSIZE_TOO_LARGE = "PSFSIZE_TOO_LARGE"
    DEPTH_TOO_SHALLOW = "DEPTH_TOO_SHALLOW"
    # imports: a row of an earlier manifest that is no task
    TASK_UNUSABLE = "TASK_UNUSABLE"


class Status(StrEnum):
    """How a host cutout (4b) or a task (4c) ended. ``OK`` is the only success."""

    OK = "OK"
    # 4b: the brick
    NOT_IN_RELEASE = "NOT_IN_RELEASE"
    BRICK_NOT_FOUND = "BRICK_NOT_FOUND"
    FILE_MISSING = "FILE_MISSING"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    # 4b: the host on its brick
    OFF_BRICK = "OFF_BRICK"
    CUTOUT_OFF_EDGE = "CUTOUT_OFF_EDGE"
    NO_COVERAGE = "NO_COVERAGE"
    PIXELS_NOT_FINITE = "PIXELS_NOT_FINITE"
    PSFSIZE_ZERO = "PSFSIZE_ZERO"
    CENTROID_FAILED = "CENTROID_FAILED"
    # 4c: the task
    CUTOUT_MISSING = "CUTOUT_MISSING"
    STAMP_OFF_CUTOUT = "STAMP_OFF_CUTOUT"
    PSF_UNSOLVABLE = "PSF_UNSOLVABLE"
    EXPOSURES_MISSING = "EXPOSURES_MISSING"
    TASK_INVALID = "TASK_INVALID"
    RENDER_NOT_FINITE = "RENDER_NOT_FINITE"
    # 4c: a pair's control on another host
    NO_MATCHED_HOST = "NO_MATCHED_HOST"
    # imports: a stamp of an earlier data set that failed there or cannot be used
    IMPORTED_FAILED = "IMPORTED_FAILED"


class RedshiftSource(StrEnum):
    """Where a host's z_l comes from."""

    SPEC = "spec"
    PHOT = "phot"
    ASSIGNED = "assigned"
