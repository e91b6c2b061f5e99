"""Gates on whole tables: a clean set passes, and each planted leak is found by the gate that is there for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_pairs import Row, drop_columns, limits, look, make_rows, restamp, seen, write_set

from dhs_pipeline.gates.balance import class_balance
from dhs_pipeline.gates.metadata import metadata_only
from dhs_pipeline.gates.result import CannotRun, GateResult, Outcome
from dhs_pipeline.gates.scan import find_set, scan_here
from dhs_pipeline.gates.sets import crossing_values, duplicate_pixels, pairs_complete, split_disjointness

LIMITS = limits("resamples=100", "max_standard_error=0.05")
FAILED = {"status": "RENDER_NOT_FINITE", "cutout_ok": 0, "stamp_npz": None}
GATES = (pairs_complete, split_disjointness, duplicate_pixels, class_balance, metadata_only)


@pytest.fixture(scope="module")
def clean() -> list[Row]:
    return make_rows(40, 2, negatives=True, alone=1)


def of_kind(rows: list[Row], kind: str) -> list[int]:
    return [i for i, r in enumerate(rows) if r["sample_kind"] == kind]


def broken(result: GateResult) -> dict[str, float]:
    return {f.name: f.value for f in result.figures if not f.ok}


@pytest.mark.parametrize("gate", GATES)
def test_a_clean_set_passes(gate, clean: list[Row], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = gate(seen(write_set(tmp_path / "set", clean)), LIMITS)
    assert (result.outcome, broken(result)) == (Outcome.PASS, {}), result.message
    assert result.figures
    assert not result.offenders


@pytest.mark.parametrize("gate", [pairs_complete, class_balance, metadata_only])
@pytest.mark.parametrize("kind", ["positive", "control"])
def test_one_class_is_no_set(gate, kind: str, clean: list[Row], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [r for r in clean if r["sample_kind"] == kind]
    with pytest.raises(CannotRun, match=f"the set has no {'control' if kind == 'positive' else 'positive'}s"):
        gate(seen(write_set(tmp_path / "set", rows)), LIMITS)


@pytest.mark.parametrize("gate", GATES)
def test_a_set_without_hosts_never_passes(gate, clean: list[Row], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = seen(drop_columns(write_set(tmp_path / "set", clean), "host_id"))
    with pytest.raises(CannotRun, match="host_id"):
        gate(data, LIMITS)


def test_pairs_that_are_not_whole(clean: list[Row], tmp_path: Path) -> None:
    rows = [dict(r) for r in clean]
    rows[3] |= FAILED  # the second pair's positive; its control is OK
    twice = rows[7] | {"task_id": "f" * 32}
    lonely = rows[10]  # a positive
    dropped = {id(r) for r in rows if r["pair_id"] == lonely["pair_id"] and r["sample_kind"] == "control"}
    orphan = rows[17]["pair_id"]
    dropped |= {id(r) for r in rows if r["pair_id"] == orphan and r["sample_kind"] == "positive"}
    orphan = rows[-2]["pair_id"]  # of it the control alone is left, which is no task without an arc
    dropped |= {id(r) for r in rows if r["pair_id"] == orphan and r["sample_kind"] != "control"}
    rows = [*(r for r in rows if id(r) not in dropped), twice, dict(rows[0])]
    result = pairs_complete(seen(write_set(tmp_path / "set", rows)), LIMITS)
    assert broken(result) == {
        "positives without a control": 1,
        "pairs without a positive": 2,
        "pairs with several positives or controls": 2,
        "pairs on one host that failed on one side only": 1,
        "task ids that are there again": 1,
    }
    assert result.outcome is Outcome.FAIL
    named = {o.task_id for o in result.offenders}
    assert {lonely["task_id"], rows[3]["task_id"]} <= named
    assert "positives without a control is 1, at most 0 was allowed" in result.message


def test_failures_on_both_sides_are_no_leak(clean: list[Row], tmp_path: Path) -> None:
    rows = [r | FAILED if r["pair_id"] == clean[0]["pair_id"] else r for r in clean]
    data = seen(write_set(tmp_path / "set", rows))
    for gate in (pairs_complete, class_balance):
        assert gate(data, LIMITS).outcome is Outcome.PASS


def test_sets_that_are_not_paired(clean: list[Row], tmp_path: Path) -> None:
    where = write_set(tmp_path / "a", clean)
    with pytest.raises(CannotRun, match="not paired: it has no column pair_id"):
        pairs_complete(look(scan_here(find_set(where)).drop_columns(["pair_id"])), LIMITS)
    alone = [r | {"pair_id": r["task_id"]} for r in clean if r["sample_kind"] != "negative"]
    with pytest.raises(CannotRun, match="no control belongs to any of the 80 positives"):
        pairs_complete(seen(write_set(tmp_path / "b", alone)), LIMITS)


@pytest.mark.parametrize("column", ["host_id", "region_id", "pair_id", "template_id"])
def test_what_lies_in_two_splits(column: str, clean: list[Row], tmp_path: Path) -> None:
    rows = [dict(r) for r in clean]
    value = rows[0][column]
    elsewhere = next(r for r in rows if r["region_split"] == "test" and r["sample_kind"] == "positive")
    elsewhere[column] = value
    result = split_disjointness(seen(write_set(tmp_path / "set", rows)), LIMITS)
    assert broken(result) == {f"{column}s in more than one split": 1}
    assert rows[0]["task_id"] in {o.task_id for o in result.offenders}


def test_templates_of_two_banks_may_share_a_name(clean: list[Row], tmp_path: Path) -> None:
    rows = [dict(r) for r in clean]
    elsewhere = next(r for r in rows if r["region_split"] == "test" and r["sample_kind"] == "positive")
    elsewhere |= {"template_id": rows[0]["template_id"], "source_mode": "deep"}
    assert split_disjointness(seen(write_set(tmp_path / "set", rows)), LIMITS).outcome is Outcome.PASS


def test_splits_that_cannot_be_compared(clean: list[Row], tmp_path: Path) -> None:
    one = [r | {"region_split": "train"} for r in clean]
    with pytest.raises(CannotRun, match="one split is here"):
        split_disjointness(seen(write_set(tmp_path / "one", one)), LIMITS)
    rows = scan_here(find_set(write_set(tmp_path / "set", clean)))
    with pytest.raises(CannotRun, match="no column template_id"):
        split_disjointness(look(rows.drop_columns(["template_id"])), LIMITS)
    none = rows.set_column(rows.column_names.index("split"), "split", [[None] * rows.num_rows])
    with pytest.raises(CannotRun, match="are in no split"):
        split_disjointness(look(none), LIMITS)


def test_what_is_broken_comes_before_what_is_missing(clean: list[Row], tmp_path: Path) -> None:
    rows = [dict(r) for r in clean]
    rows[0]["region_split"] = "test"
    table = scan_here(find_set(write_set(tmp_path / "set", rows))).drop_columns(["template_id"])
    assert split_disjointness(look(table), LIMITS).outcome is Outcome.FAIL


def test_the_same_pixels(clean: list[Row], tmp_path: Path) -> None:
    rows = [dict(r) for r in clean]
    positives, controls = of_kind(rows, "positive"), of_kind(rows, "control")
    rows[positives[4]]["stamp_npz"] = rows[positives[0]]["stamp_npz"]  # of another host, in the same split
    own = next(i for i in controls if rows[i]["pair_id"] == rows[positives[6]]["pair_id"])
    rows[positives[6]]["stamp_npz"] = rows[own]["stamp_npz"]
    result = duplicate_pixels(seen(write_set(tmp_path / "set", rows)), LIMITS)
    assert broken(result) == {
        "pixels under more than one host": 1,
        "positives with the pixels of another row": 3,
        "positives with the pixels of their own control": 1,
    }
    assert rows[positives[6]]["task_id"] in {o.task_id for o in result.offenders}
    equal = next(f for f in result.figures if f.name == "controls with the pixels of another row")
    assert equal.value == len(controls)  # three rows per host, and no artifacts
    assert equal.limit == ""


def test_a_host_under_two_names_in_two_splits(clean: list[Row], tmp_path: Path) -> None:
    rows = [dict(r) for r in clean]
    controls = of_kind(rows, "control")
    far = next(i for i in controls if rows[i]["region_split"] == "test")
    rows[far]["stamp_npz"] = rows[controls[0]]["stamp_npz"]
    result = duplicate_pixels(seen(write_set(tmp_path / "set", rows)), LIMITS)
    assert broken(result) == {"pixels under more than one host": 1, "pixels in more than one split": 1}


def changed(rows: list[Row], kind: str, change) -> list[Row]:  # type: ignore[no-untyped-def]
    return [restamp(r, change) if r["sample_kind"] == kind else r for r in rows]


def clip_high(image: np.ndarray) -> np.ndarray:
    return np.minimum(image, np.float32(0.03))


def dead_pixel(image: np.ndarray) -> np.ndarray:
    image[2, 3] = 0.0
    return image


def hole(image: np.ndarray) -> np.ndarray:
    image[2, 3] = np.nan
    return image


@pytest.mark.parametrize(
    ("change", "figures"),
    [
        (
            lambda im: im.astype(np.float64),
            {"layouts (keys, dtypes, shapes) that a class lacks", "pairs of two layouts"},
        ),
        (hole, {"pairs with different numbers of NaN", "rows with NaN, difference of classes"}),
        (dead_pixel, {"zeros within pairs, sign test over hosts: p"}),
        (clip_high, {"hosts at the commonest maximum, Fisher test: p"}),
    ],
)
def test_what_the_numbers_tell(change, figures: set[str], clean: list[Row], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = class_balance(seen(write_set(tmp_path / "set", changed(clean, "control", change))), LIMITS)
    assert set(broken(result)) == figures
    both = changed(changed(clean, "control", change), "positive", change)
    both = [r for r in both if r["sample_kind"] != "negative"]
    assert class_balance(seen(write_set(tmp_path / "both", both)), LIMITS).outcome is Outcome.PASS


def test_layers_of_one_class_alone(clean: list[Row], tmp_path: Path) -> None:
    bare = {r["task_id"]: r for r in make_rows(40, 2, layers=False)}
    rows = [bare[r["task_id"]] if r["sample_kind"] == "control" and r["is_control"] == 0 else r for r in clean]
    found = broken(class_balance(seen(write_set(tmp_path / "set", rows)), LIMITS))
    assert found["pairs of two layouts"] == 80


def test_conditions_and_artifacts_of_a_pair(clean: list[Row], tmp_path: Path) -> None:
    rows = [dict(r) for r in clean]
    control = of_kind(rows, "control")[1]
    rows[control] |= {"psfsize_g_arcsec": 1.0, "artifact_cosmic_band": "g"}
    result = class_balance(seen(write_set(tmp_path / "set", rows)), LIMITS)
    assert broken(result) == {"pairs with two values of psfsize_g_arcsec": 1, "pairs with two kinds of artifacts": 1}
    assert result.offenders[0].task_id == rows[control]["pair_id"]


def on_other_hosts(rows: list[Row], shift_arcsec: float) -> list[Row]:
    """Controls named after hosts of their own, whose psfsize is shifted."""
    return [
        r | {"host_id": "c" + r["host_id"], "psfsize_r_arcsec": r["psfsize_r_arcsec"] + shift_arcsec}
        if r["sample_kind"] == "control"
        else r
        for r in rows
    ]


def test_conditions_of_controls_on_other_hosts(clean: list[Row], tmp_path: Path) -> None:
    same = class_balance(seen(write_set(tmp_path / "same", on_other_hosts(clean, 0.0))), LIMITS)
    assert same.outcome is Outcome.PASS
    shifted = class_balance(seen(write_set(tmp_path / "shifted", on_other_hosts(clean, 0.12))), LIMITS)
    assert list(broken(shifted)) == ["psfsize_r_arcsec, Kolmogorov-Smirnov test: p"]


def test_failures_of_one_class(clean: list[Row], tmp_path: Path) -> None:
    positives = of_kind(clean, "positive")
    rows = [r | FAILED if i in positives[:4] else r for i, r in enumerate(clean)]
    found = broken(class_balance(seen(write_set(tmp_path / "set", rows)), LIMITS))
    assert found == {"fraction of a status, largest difference": pytest.approx(0.05)}


@pytest.mark.parametrize(
    ("leak", "other"),
    [
        ({"psfsize_z_arcsec": 1.25}, "control"),
        ({"ra_deg": None}, "control"),
        ({"bad_pixel_frac": 0.0}, "control"),
        ({"mag_g": 19.0}, "negative"),
    ],
)
def test_metadata_that_tell_the_class(leak: Row, other: str, clean: list[Row], tmp_path: Path) -> None:
    rows = [r | leak if r["sample_kind"] == other else r for r in clean]
    result = metadata_only(seen(write_set(tmp_path / "set", rows)), LIMITS)
    assert result.outcome is Outcome.FAIL
    assert all(f"positives against {other}s" in name for name in broken(result))


def test_pairs_of_metadata_are_drawn_whole_and_absent_columns_named(clean: list[Row], tmp_path: Path) -> None:
    data = seen(write_set(tmp_path / "set", clean))
    few = metadata_only(data, limits("resamples=100", "max_standard_error=0.06", "metadata_only.max_rows=180"))
    assert {f.rows for f in few.figures} != {f.rows for f in metadata_only(data, LIMITS).figures}
    against_negatives = few.figures[-1]  # two rows of each pair, so an even number
    assert against_negatives.rows % 2 == 0
    assert 80 < against_negatives.rows < 130
    part = look(data.rows.drop_columns(["psfsize_g_arcsec", "ebv_mag"]))
    message = metadata_only(part, LIMITS).message
    assert "not there: psfsize_g_arcsec, " in message
    assert "ebv_mag" in message
    assert "mag_r" not in message
    with pytest.raises(CannotRun, match="have no power"):
        metadata_only(data, limits())


def test_values_in_two_groups() -> None:
    values = np.array(["a", "a", "b", "b", None, None, "c"], dtype=object)
    groups = np.array([1, 2, 1, 1, 1, 2, None], dtype=object)
    assert crossing_values(values, np.array([None if g is None else str(g) for g in groups], dtype=object)) == ["a"]
