"""Colour images as the Legacy Surveys' viewer makes them, and PNG bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

VIEWER_SCALE_PER_NMGY = {"g": 6.0, "r": 3.4, "z": 2.2}
"""Brightness per nanomaggy/pix of the public viewer of the Legacy Surveys since DR9."""
VIEWER_OFFSET = 0.03
"""What the viewer adds to each scaled band, so that the sky is dark grey and its noise shows."""
VIEWER_SOFTENING = 20.0
"""Q of the viewer's arcsinh stretch of the mean intensity (Lupton et al. 2004, PASP 116, 133)."""

_PLANE = {"z": 0, "r": 1, "g": 2}


def colour_image(bands: Mapping[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
    """Nanomaggies per band → (rows, columns, 3) colours, z red, r green, g blue; North up.

    The colour of a pixel is kept and its intensity is stretched. A plane whose band is not there takes the mean of
    the others, so one band alone is grey.
    """
    scaled = {
        _PLANE[b]: np.nan_to_num(np.asarray(image, np.float64)) * VIEWER_SCALE_PER_NMGY[b] + VIEWER_OFFSET
        for b, image in bands.items()
    }
    planes = np.stack(list(scaled.values()))
    mean = np.maximum(planes, 0.0).mean(axis=0)
    gain = np.arcsinh(VIEWER_SOFTENING * mean) / (np.sqrt(VIEWER_SOFTENING) * np.maximum(mean, 1e-6))
    grey = planes.mean(axis=0)
    rgb = np.stack([scaled.get(plane, grey) for plane in range(3)], axis=-1) * gain[..., None]
    return np.round(255 * np.clip(rgb, 0.0, 1.0)).astype(np.uint8)[::-1]


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """(rows, columns, 3) → PNG, first row on top."""
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(pixels), format="png")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """PNG bytes as the ``src`` of an image."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
