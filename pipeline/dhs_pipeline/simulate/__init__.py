"""The embedded demo input: two small simulated bricks in the DR10 coadd layout, and their parent catalogue.

``simulate_survey(out_dir, load_simulation_settings())`` writes them, in seconds and always the same bytes.
They are for the demo and the tests; science runs read the survey's own bricks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dhs_pipeline.simulate.files import brick_wcs, write_brick
from dhs_pipeline.simulate.maskbits import build_maskbits
from dhs_pipeline.simulate.parent import Row, parent_rows, write_parent
from dhs_pipeline.simulate.render import render_band
from dhs_pipeline.simulate.scene import build_scene
from dhs_pipeline.simulate.settings import ALL_BANDS, SimulationSettings, load_simulation_settings

__all__ = ["SimulatedSurvey", "SimulationSettings", "load_simulation_settings", "simulate_survey"]


@dataclass(frozen=True)
class SimulatedSurvey:
    """Where the demo input lies: the folder that holds coadd/, and the parent catalogue."""

    data_dir: Path
    parent_path: Path


def simulate_survey(out_dir: Path, settings: SimulationSettings) -> SimulatedSurvey:
    """Write ``out_dir``/coadd/... and ``out_dir``/parent.parquet.

    Parameters
    ----------
    out_dir
        Made if absent; files of an earlier run with the same names are replaced.
    settings
        See conf/simulation/default.yaml. The same settings give byte-identical files.

    Raises
    ------
    ImportError
        Without GalSim, naming the extra that brings it.
    ValueError
        If the hosts or stars asked for do not fit the bricks.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for brick in settings.bricks:
        scene = build_scene(brick, settings)
        maps = {band: render_band(brick, scene, band, settings) for band in ALL_BANDS}
        maskbits = build_maskbits(scene, maps, settings)
        write_brick(out_dir, brick, maps, maskbits, settings)
        rows += parent_rows(brick, scene, maps, maskbits, brick_wcs(brick, settings), settings)
    parent_path = out_dir / "parent.parquet"
    write_parent(parent_path, rows)
    return SimulatedSurvey(data_dir=out_dir, parent_path=parent_path)
