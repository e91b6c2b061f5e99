"""Another host for a pair's control: of the same region, as like as can be, the same whatever is rendered.

The match is a function of the hosts of one part and of how their cutouts ended, so rows do not depend on each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhs_gen.status import Status
from dhs_pipeline.config import MatchedHost
from dhs_pipeline.schemas import HOST_COLUMNS
from dhs_pipeline.storage import Location

_PSFSIZE = "psfsize_r_map_arcsec"


@dataclass(frozen=True, eq=False)
class Match:
    """The host of a matched control, or why there is none.

    Parameters
    ----------
    host
        HOST_COLUMNS of the other host by name; None if there is none.
    status, message
        How the control ends if there is none: OK where there is one.
    """

    host: Mapping[str, Any] | None
    status: Status = Status.OK
    message: str = ""


@lru_cache(maxsize=2)
def read_matches(hosts: Location, cutouts: Location, rules: MatchedHost) -> Mapping[str, Match]:
    """Host id → match, of every host of a part (files of phase4a/hosts and phase4b/cutouts); read once per worker."""
    rows = hosts.read_table(list(HOST_COLUMNS)).to_pylist()
    light = cutouts.read_table(["host_id", "status", "message", _PSFSIZE]).to_pylist()
    return match_hosts(rows, {row["host_id"]: row for row in light}, rules)


def match_hosts(
    hosts: Sequence[Mapping[str, Any]], cutouts: Mapping[str, Mapping[str, Any]], rules: MatchedHost
) -> dict[str, Match]:
    """The nearest other host within all tolerances, for each host.

    The distance of two hosts is √Σ(Δ/tolerance)² over the quantities that have a tolerance; of equally near ones the
    first by host_id is taken. Only hosts with a cutout are taken, and each may be taken any number of times.

    Parameters
    ----------
    hosts
        HOSTS rows, each host once.
    cutouts
        Host id → status, message and psfsize_r_map_arcsec of its cutout.
    rules
        The tolerances, and within which region to look.
    """
    tolerances = _tolerances(rules)
    regions: dict[int | None, list[Mapping[str, Any]]] = defaultdict(list)
    for host in sorted(hosts, key=lambda h: h["host_id"]):
        regions[host[rules.match_within]].append(host)
    found: dict[str, Match] = {}
    for region, here in regions.items():
        values = np.array([_values(host, cutouts, tolerances) for host in here])
        usable = np.isfinite(values).all(axis=1)
        usable &= np.array([_status(host, cutouts)[0] is Status.OK for host in here])
        for index, host in enumerate(here):
            status, message = _status(host, cutouts)
            if status is not Status.OK:
                found[host["host_id"]] = Match(None, status, message)
            else:
                where = f"{rules.match_within} {region}"
                found[host["host_id"]] = _nearest(index, here, values, usable, tolerances, where)
    return found


def _tolerances(rules: MatchedHost) -> dict[str, float]:
    """Column → tolerance, of the quantities that take part."""
    given = {
        "mag_r": rules.mag_r_tolerance_mag,
        _PSFSIZE: rules.psfsize_r_tolerance_arcsec,
        "psfdepth_r_mag": rules.psfdepth_r_tolerance_mag,
    }
    return {column: tolerance for column, tolerance in given.items() if tolerance is not None}


def _values(
    host: Mapping[str, Any], cutouts: Mapping[str, Mapping[str, Any]], tolerances: Mapping[str, float]
) -> list[float]:
    row = {**host, _PSFSIZE: cutouts.get(host["host_id"], {}).get(_PSFSIZE)}
    return [float("nan") if row[column] is None else row[column] for column in tolerances]


def _status(host: Mapping[str, Any], cutouts: Mapping[str, Mapping[str, Any]]) -> tuple[Status, str]:
    """How the host's cutout ended."""
    cutout = cutouts.get(host["host_id"])
    if cutout is None:
        return Status.CUTOUT_MISSING, f"no cutout of host {host['host_id']}"
    status = Status(cutout["status"])
    return status, cutout["message"] or f"cutout of {host['host_id']} is {status}"


def _nearest(
    index: int,
    hosts: Sequence[Mapping[str, Any]],
    values: NDArray[np.float64],
    usable: NDArray[np.bool_],
    tolerances: Mapping[str, float],
    where: str,
) -> Match:
    """The match of host ``index`` among ``hosts``, which are in the order of their ids."""
    host_id = hosts[index]["host_id"]
    if unknown := [column for column, value in zip(tolerances, values[index], strict=True) if not np.isfinite(value)]:
        return Match(None, Status.NO_MATCHED_HOST, f"{unknown[0]} of host {host_id} is not known")
    others = np.flatnonzero(usable & (np.arange(len(hosts)) != index))
    if not others.size:
        return Match(None, Status.NO_MATCHED_HOST, f"no other host with a cutout in {where}")
    apart = np.abs(values[others] - values[index]) / np.array(list(tolerances.values()))
    distance = np.sqrt((apart**2).sum(axis=1))
    near = np.flatnonzero((apart <= 1).all(axis=1))
    if near.size:
        return Match(hosts[others[near[np.argmin(distance[near])]]])
    nearest = others[np.argmin(distance)]
    differences = ", ".join(
        f"{column} {b - a:+.3f} (tolerance {tolerance:g})"
        for (column, tolerance), a, b in zip(tolerances.items(), values[index], values[nearest], strict=True)
    )
    message = f"nearest of {others.size} hosts in {where} is {hosts[nearest]['host_id']}: {differences}"
    return Match(None, Status.NO_MATCHED_HOST, message)
