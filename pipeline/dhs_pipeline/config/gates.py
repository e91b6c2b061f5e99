"""Limits of the gates (conf/gates): declared before a data set is seen, each with its reason beside it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dhs_pipeline.config.base import Fraction, Model, NonNegative, Positive

Count = Annotated[int, Field(ge=1)]


class BalanceLimits(Model):
    """class_balance."""

    max_status_difference: Fraction
    min_p_value: Fraction


class MetadataLimits(Model):
    """metadata_only: columns that may be known before a stamp is opened."""

    columns: tuple[str, ...]
    max_rows: Count


class IdentityLimits(Model):
    """pair_identity."""

    max_whitened_variance: Positive
    min_whitened_variance: NonNegative
    lit_electrons: Positive
    faint_electrons: Positive
    rounding_ulp: Positive


class BorderLimits(Model):
    """border_texture: pixels that no arc reaches."""

    min_radius_pix: Positive
    max_arc_sigma: Positive
    min_pixels: Count


class RadialLimits(Model):
    """radial_profile."""

    bin_width_pix: Positive
    max_radius_pix: Positive


class CoreLimits(Model):
    """core_only."""

    radius_pix: Positive
    theta_e_over_fwhm_edges: tuple[Positive, ...]
    min_pairs: Count
    wide_theta_e_arcsec: Positive
    max_auc_when_wide: Fraction
    faint_core_snr: Positive


class CentringLimits(Model):
    """arc_centring."""

    window_sigma_arcsec: Positive
    max_shift_arcsec: Positive
    max_slope: Positive
    min_power_slope: Positive


class NullLimits(Model):
    """null_injection."""

    pairs: Count


class AmplitudeLimits(Model):
    """arc_amplitude."""

    pairs: Count
    steps: Annotated[int, Field(ge=2)]
    tolerance: NonNegative
    min_fall: Fraction


class PsfSwapLimits(Model):
    """psf_swap."""

    pairs: Count
    factors: tuple[Positive, ...]
    max_auc_change: Positive
    max_psfsize_difference: Fraction
    max_kernel_difference: Fraction
    max_arc_difference: Fraction
    max_sharpness_difference: Fraction


class TransformLimits(Model):
    """transformed_control."""

    pairs: Count
    invisible: tuple[str, ...]
    visible: tuple[str, ...]
    negative_pairs: Count
    artifact_profile: str
    core_dropout_probability: Fraction
    core_annulus_width_pix: Annotated[float, Field(ge=1)]
    otf_threshold: Annotated[float, Field(gt=0, lt=1)]
    max_high_frequency_ratio: Positive


class RealismLimits(Model):
    """realism."""

    max_lower_bound: Fraction
    min_real: Count
    flux_strata: Count
    max_arc_snr: Positive


class GatesConfig(Model):
    """What all gates share, and each gate's own limits."""

    name: str
    sample_pairs: Count
    spark_above_rows: Count
    folds: Annotated[int, Field(ge=2)]
    resamples: Annotated[int, Field(ge=100)]
    sigmas: Positive
    max_standard_error: Positive
    max_host_standard_error: Positive
    min_hosts: Count
    max_offenders: Count
    class_balance: BalanceLimits
    metadata_only: MetadataLimits
    pair_identity: IdentityLimits
    border_texture: BorderLimits
    radial_profile: RadialLimits
    core_only: CoreLimits
    arc_centring: CentringLimits
    null_injection: NullLimits
    arc_amplitude: AmplitudeLimits
    psf_swap: PsfSwapLimits
    transformed_control: TransformLimits
    realism: RealismLimits
