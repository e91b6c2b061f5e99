"""Goals, verdicts and exit codes of `make bench`, and its record of runs."""

import json
import math
from dataclasses import asdict, replace

import measure_goals
import pytest
from bench import history, machine
from bench.goals import GOALS, Check, Figure, Inputs, Measurement, exit_code, not_measured, table
from bench.timing import ratio, take_turns

GOOD = Check("error", 0.1, 0.3, "%")
BAD = Check("error", 0.31, 0.3, "%")


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        ("kernel-gen5", 60.0, "MET"),
        ("kernel-gen5", 59.9, "MISSED"),
        ("4c-floor", 2.0, "MET"),
        ("4c-floor", 2.1, "MISSED"),
        ("start-up", 3.5, "MISSED"),
        ("reader", math.nan, "MISSED"),
        ("4a", None, "not measured"),
    ],
)
def test_verdict_follows_the_goals_direction(goal, value, verdict):
    assert Measurement(goal, value, checks=(GOOD,)).verdict == verdict


@pytest.mark.parametrize("error", [0.31, math.nan, math.inf])
def test_a_failed_check_is_wrong_however_fast(error):
    found = Measurement("kernel-gen5", 1e6, checks=(GOOD, replace(BAD, error=error)))
    assert found.verdict == "WRONG"
    assert exit_code([found]) == 1


def test_a_missed_goal_is_no_failure():
    assert exit_code([Measurement("4a", 1.0, checks=(GOOD,)), *not_measured(["4b"], "no script")]) == 0


def test_an_unknown_goal_is_an_error():
    with pytest.raises(ValueError, match="no goal '4d'; there are kernel-gen5"):
        Measurement("4d", 1.0)


def test_the_table_has_goal_wanted_measured_peer_and_verdict():
    told = table([Measurement("4c-rate", 12345.6, (Figure("CPU per stamp", 2.0, "ms"),), (BAD,), "units of 256")])
    assert (
        "| 4c from reading to writing, 2 cores | ≥ 1000 stamps/s | 12,346 stamps/s | CPU per stamp 2 ms | WRONG |"
        in told
    )
    assert "WRONG: 4c-rate: error 0.31 %, allowed 0.3" in told
    assert "4c-rate: units of 256" in told


def test_turns_have_a_warm_up_and_alternate():
    calls = []
    clock = iter(range(100))
    seconds = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, lambda: next(clock))
    assert "".join(calls) == "ab" + "ab" + "ba"
    assert seconds == {"a": [1, 1], "b": [1, 1]}
    assert ratio([2.0, 40.0, 6.0], [1.0, 10.0, 2.0]) == 3.0


def run_of(utc, value):
    where = machine.Machine("CPU", 2, None, 8.0, "Linux", "3.11", {"numpy": "2"}, "abc")
    found = (
        Measurement("flat", value, (Figure("f", 1.5, "ms"),), (GOOD,), "note", ((2000.0, 4.0), (8000.0, 4.1))),
        *not_measured(["4a"], "no script"),
    )
    return history.Run(utc, 12.5, where, (0.1, 2.0), {"size": "quick"}, found)


def test_runs_are_kept_as_they_were(tmp_path):
    old, new = run_of("20260101T000000Z", 1.05), run_of("20260102T000000Z", 1.2)
    files = [history.save(run, tmp_path) for run in (new, old)]
    assert [f.name for f in files] == ["20260102T000000Z-abc.json", "20260101T000000Z-abc.json"]
    assert history.load_all(tmp_path) == [old, new]
    assert json.loads(files[0].read_text())["measurements"][0]["value"] == 1.2
    with pytest.raises(FileExistsError):
        history.save(new, tmp_path)


def test_comparison_has_a_column_for_each_run_and_hides_wrong_figures():
    wrong = replace(run_of("20260102T000000Z", 1.2).measurements[0], checks=(BAD,))
    told = history.comparison(
        [run_of("20260101T000000Z", 1.05), replace(run_of("20260102T000000Z", 1.2), measurements=(wrong,))]
    )
    assert f"| {GOALS['flat'].name} | x | 1.05 | WRONG |" in told
    assert GOALS["4a"].name not in told  # measured in neither


def test_pictures(tmp_path):
    runs = [run_of("20260101T000000Z", 1.05), run_of("20260102T000000Z", 1.2)]
    assert history.plot_cost(runs[0].measurements, tmp_path / "cost.png")
    assert history.plot_history(runs, tmp_path / "history.png")
    assert not history.plot_history(runs[:1], tmp_path / "none.png")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["cost.png", "history.png"]


def test_the_machine_is_described():
    here = asdict(machine.describe())
    assert here["cores"] >= 1
    assert here["cpu"]
    assert here["packages"]["numpy"][0].isdigit()


class TestDriver:
    """With parts made for the test."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(history, "FOLDER", tmp_path / "build")
        monkeypatch.setattr(measure_goals.history.save, "__defaults__", (tmp_path / "build",))
        monkeypatch.setattr(measure_goals.history.load_all, "__defaults__", (tmp_path / "build",))
        return tmp_path / "build"

    def part(self, monkeypatch, measure):
        module = type("Part", (), {"measure": staticmethod(measure)})
        monkeypatch.setattr(measure_goals.importlib, "import_module", lambda name: module)

    def test_prints_the_goals_and_keeps_the_run(self, folder, monkeypatch, capsys):
        self.part(monkeypatch, lambda inputs: [Measurement("kernel-gen5", 70.0, checks=(GOOD,))])
        assert measure_goals.main(["--only", "kernel"]) == 0
        told = capsys.readouterr().out
        assert "| ≥ 60 x | 70 x |  | MET |" in told
        assert "kernel-gen7: benchmarks/kernel.py does not tell it" in told
        (file,) = folder.glob("*.json")
        assert history.load_run(file).inputs == {"parts": "kernel", "size": "quick"}

    def test_a_wrong_result_ends_in_1_and_is_kept(self, folder, monkeypatch):
        self.part(monkeypatch, lambda inputs: [Measurement("kernel-gen5", 70.0, checks=(BAD,))])
        assert measure_goals.main(["--only", "kernel"]) == 1
        assert len(list(folder.glob("*.json"))) == 1

    def test_a_part_that_breaks_is_told_and_ends_in_1(self, monkeypatch, capsys):
        def broken(inputs):
            raise OSError("no space left")

        self.part(monkeypatch, broken)
        assert measure_goals.main(["--only", "kernel"]) == 1
        assert "benchmarks/kernel.py broke: OSError: no space left" in capsys.readouterr().out

    def test_a_missing_script_is_a_row_that_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setitem(measure_goals.PARTS, "absent", ("4a",))
        part = measure_goals.run_part("absent", Inputs(tmp_path / "work"))
        assert [m.verdict for m in part.measurements] == ["not measured"]
        assert not part.broke

    def test_each_part_gets_an_empty_folder_of_its_own(self, monkeypatch):
        seen = []
        self.part(monkeypatch, lambda inputs: seen.append(list(inputs.work.iterdir())) or [])
        measure_goals.main(["--only", "kernel,endtoend"])
        assert seen == [[], []]

    def test_history_measures_nothing(self, monkeypatch, capsys):
        assert measure_goals.main(["--history"]) == 0
        assert "no runs" in capsys.readouterr().out

    def test_unknown_parts_are_named(self, capsys):
        with pytest.raises(SystemExit):
            measure_goals.main(["--only", "kernels"])
        assert "no part kernels; there are kernel, endtoend" in capsys.readouterr().err
