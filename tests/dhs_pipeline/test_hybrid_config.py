"""Gen7 in the configuration: ranges are ordered, and the task's bands reach the template."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dhs_gen.task import SourceParams, Task
from dhs_pipeline.config import Generation, HybridSource, load_section
from dhs_pipeline.sources import Banks, source_maker

GOOD: dict[str, Any] = {
    "mode": "hybrid",
    "re_pix": 12.0,
    "half_size_re": 6.0,
    "n_clumps": (2, 6),
    "clump_sigma_re": (0.13, 0.33),
    "clump_flux_fraction": (0.05, 0.25),
    "gradient_mag_per_dex": 0.2,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_clumps": (6, 2)}, "n_clumps must be a range low <= high, got 6, 2"),
        ({"clump_sigma_re": (0.3, 0.1)}, "clump_sigma_re must be a range"),
        ({"clump_flux_fraction": (0.3, 0.1)}, "clump_flux_fraction must be a range"),
        ({"clump_flux_fraction": (0.3, 1.0)}, "clump_flux_fraction must stay below 1"),
        ({"gradient_mag_per_dex": 3.0}, "less than or equal to 2"),
    ],
)
def test_a_wrong_source_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        HybridSource(**(GOOD | changes))


@pytest.mark.parametrize(("name", "channels"), [("gen7", 2), ("gen7a", 1), ("gen7b", 1), ("gen7c", 2)])
def test_template_has_a_channel_per_band_of_the_task(name: str, channels: int) -> None:
    make = source_maker(load_section(Generation, "generations", name), Banks(), 10)
    source = SourceParams(0, 0, 22, 0, 0, 0.2, 1.0, 0.25, 0.9, True, 0.5)
    made = make(Task("task", "gz", 64, {"g": 1.0, "z": 1.0}, None, source), None)
    assert made is not None
    assert made.template.pixels.shape[0] == channels
