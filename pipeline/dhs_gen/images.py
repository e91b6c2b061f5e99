"""The check that the public image functions share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["as_image"]


def as_image(name: str, values: ArrayLike, ndim: int | None = None) -> NDArray[np.floating]:
    """``values`` as a finite (..., H, W) array; float32 and float64 stay, all else becomes float64 (float16: float32).

    Raises
    ------
    ValueError
        Naming the argument: if it is not an array of real numbers, has not two or more dimensions (exactly ``ndim``, if
        given), is empty, or holds a NaN or an infinity.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim < 2 or array.size == 0 or (ndim is not None and array.ndim != ndim):
        wanted = "(..., H, W)" if ndim is None else "(H, W)"
        raise ValueError(f"{name} must have shape {wanted} and at least one pixel, got {array.shape}")
    image: NDArray[np.floating] = (
        array.astype(np.result_type(array.dtype, np.float32)) if array.dtype.kind == "f" else array.astype(np.float64)
    )
    if not np.isfinite(image).all():
        bad = int((~np.isfinite(image)).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite pixels of {image.size}")
    return image
