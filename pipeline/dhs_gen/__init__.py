"""Generator kernels: what one stamp is.

Pure functions of arrays and one manifest row. No Spark, no S3, no global state, no clock.
"""

from dhs_gen.streams import stream
from dhs_gen.units import from_surface_brightness, to_surface_brightness

__all__ = ["from_surface_brightness", "stream", "to_surface_brightness"]
