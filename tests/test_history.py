"""Cases over saved runs: what is called a step, what drift, what is left out, and what reaches a terminal."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from trtgate.cli import app
from trtgate.commands import history_answers, history_text
from trtgate.common import accelerator, files
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.gate import history, level_changes
from trtgate.gate.baseline_record import CaseRecord
from trtgate.gate.history import HistoryPoint, Series
from trtgate.gate.saved_runs import Asked

from .test_baselines import CARD, document, record

OTHER_CARD = msgspec.structs.replace(CARD, name="NVIDIA Other")
CPU = Accelerator(kind="cpu", name="Test CPU", cpus=2)
NASTY = "evil\n\x1b[31m\u202e"

needs_otava = pytest.mark.skipif(
    importlib.util.find_spec("otava") is None, reason="needs Apache Otava: pip install --no-deps apache-otava"
)


class Runs:
    """A folder of saved runs, one a day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def add(self, *records: CaseRecord, card: Accelerator = CARD, commit: Any = None, name: str = "") -> Path:
        self.count += 1
        day = f"2026-{1 + self.count // 28:02}-{1 + self.count % 28:02}T12:00:00+00:00"
        dated = [
            msgspec.structs.replace(r, sessions=[msgspec.structs.replace(s, recorded=day) for s in r.sessions])
            for r in records
        ]
        path = self.folder / (name or f"{self.count:03}.json")
        if commit is None:
            commit = {"id": f"{self.count:02x}" * 20, "branch": "main", "dirty": False}
        files.write_json(path, {**document(*dated, card=card), "commit_info": commit})
        return path

    def add_all(self, latencies: Sequence[float], case: str = "net") -> None:
        for us in latencies:
            self.add(record(case, us))

    def say(self, *names: str, key: str = CARD.key, encoding: str = "utf-8") -> str:
        found = history_answers.find(names or ["net"], self.folder, Asked(key=key))
        return "\n".join(history_text.lines(found, encoding))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def noise(seed: int, count: int, sd: float) -> np.ndarray:
    return np.random.default_rng([seed, count]).normal(0, sd, count)


def analysed(logs: np.ndarray) -> Series:
    points = [
        HistoryPoint(
            recorded=f"{i:04}", run=f"{i}", commit="", branch="", dirty=False, latency_us=us, verdict="unchanged"
        )
        for i, us in enumerate(64 * np.exp(logs))
    ]
    return history.analysed("device", "cuda_graph", "GPU-1", points)


# What is found


@needs_otava
@pytest.mark.parametrize("sd", [0.0, 0.001, 0.003])
def test_a_step_is_found_where_it_is(sd: float) -> None:
    series = analysed(np.log(1.03) * (np.arange(20) >= 12) + noise(1, 20, sd))
    (step,) = series.steps
    assert step.first == 12
    assert step.after_us / step.before_us == pytest.approx(1.03, abs=0.003)
    assert series.drift is None


@needs_otava
@pytest.mark.parametrize("flat", [0, 20])
@pytest.mark.parametrize("seed", range(3))
def test_ten_runs_each_a_little_slower_are_a_drift_and_no_steps(flat: int, seed: int) -> None:
    logs = np.concatenate([np.zeros(flat), np.arange(10) * np.log(1.003)])
    series = analysed(logs + noise(seed, len(logs), 0.001))
    assert series.steps == []
    assert series.drift is not None
    assert series.drift.low < series.drift.change < series.drift.high
    assert series.drift.change == pytest.approx(1.003**9 - 1, abs=0.005)
    assert series.drift.runs == pytest.approx(10, abs=1)


@needs_otava
def test_a_step_is_found_in_more_runs_than_a_window_holds() -> None:
    series = analysed(np.log(1.03) * (np.arange(130) >= 100) + noise(1, 130, 0.002))
    assert [step.first for step in series.steps] == [100]


@needs_otava
def test_getting_faster_bit_by_bit_is_drift_too() -> None:
    drift = analysed(np.arange(12) * np.log(0.997)).drift
    assert drift is not None
    assert drift.change == pytest.approx(0.997**11 - 1)


@needs_otava
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("seed", range(3))
def test_a_drift_that_ended_is_none_and_its_rise_is_told_by_steps(seed: int, direction: int) -> None:
    logs = direction * 0.004 * np.minimum(np.arange(32), 20)
    going_on = analysed(logs[:21] + noise(seed, 21, 0.001))
    assert going_on.drift is not None
    ended = analysed(logs + noise(seed, 32, 0.001))
    assert ended.drift is None
    assert ended.steps


@needs_otava
def test_a_bend_is_where_least_squares_put_it() -> None:
    for seed in range(30):
        logs = noise(seed, 8 + seed, 0.002) + 5 + 0.001 * np.maximum(np.arange(8 + seed) - seed, 0)
        errors = []
        for began in range(len(logs) - level_changes.LEAST_DRIFTING + 1):
            design = np.column_stack([np.ones(len(logs)), np.maximum(np.arange(len(logs)) - began, 0)])
            errors.append(float(np.sum((logs - design @ np.linalg.lstsq(design, logs, rcond=None)[0]) ** 2)))
        began, error = level_changes._best_bend(logs)
        assert began == int(np.argmin(errors))
        assert error == pytest.approx(min(errors), rel=1e-6)


def test_a_step_before_a_drift_is_told_from_it() -> None:
    logs = np.concatenate([np.zeros(10), np.full(20, 0.05), 0.05 + np.arange(1, 11) * 0.003])
    series = analysed(logs + noise(3, 40, 0.0005))
    assert [step.first for step in series.steps] == [10]
    assert series.drift is not None
    assert series.drift.first == pytest.approx(29, abs=1)
    assert series.steps[0].after_us == pytest.approx(64 * np.exp(0.05), rel=1e-3)


@needs_otava
@pytest.mark.parametrize("sd", [0.001, 0.003])
def test_a_flat_series_is_rarely_called_changed(sd: float) -> None:
    found = [analysed(noise(seed, 30, sd)) for seed in range(500)]
    assert sum(bool(series.steps or series.drift) for series in found) <= 5  # 1 %, twice what the module states


@needs_otava
def test_identical_latencies_are_flat() -> None:
    series = analysed(np.zeros(45))
    assert (series.steps, series.drift) == ([], None)


@pytest.mark.parametrize("latencies", [[64.0], [64.0, 96.0], [64.0, 96.0, 64.0, 96.0]])
def test_too_few_runs_say_so(runs: Runs, latencies: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "otava.analysis", None)  # not needed for that
    runs.add_all(latencies)
    said = runs.say()
    assert f"{len(latencies)} run" in said
    assert "too few runs to look for changes: it takes 5" in said


# What is said


@needs_otava
def test_a_step_is_a_sentence_with_runs_commits_and_dates(runs: Runs) -> None:
    runs.add_all([64.1] * 6 + [66.0] * 6)
    assert (
        "between 006.json (060606060 on main, 2026-01-07) and 007.json (070707070 on main, 2026-01-08): "
        "64.1 µs → 66 µs, +2.96%"
    ) in runs.say()


@needs_otava
def test_a_drift_is_a_sentence_with_its_interval(runs: Runs) -> None:
    runs.add_all([64 * 1.003**i for i in range(10)])
    said = runs.say()
    assert "drifted by +2.73% (+2.73% to +2.73%) over the last 10 runs, from 001.json (" in said
    assert "between" not in said
    assert "▁▂▃▃▄▅▆▆▇█  first 64 µs, last 65.749 µs (unchanged), min 64 µs, max 65.749 µs" in said


@needs_otava
def test_runs_that_rise_one_after_the_other_are_said_to_drift_before_a_slope_can_be_told(runs: Runs) -> None:
    runs.add_all([64.0, 64.1, 64.2, 64.3, 64.4])
    assert "drifting: 5 runs get slower one after the other, +0.63% in all" in runs.say()


@needs_otava
def test_noise_does_not_look_like_mountains(runs: Runs) -> None:
    runs.add_all([64.0, 64.1, 64.05, 64.1, 64.0])
    said = runs.say()
    assert "▁▂▁▂▁" in said
    assert "no change found" in said


@needs_otava
def test_a_terminal_that_can_only_ascii_gets_ascii(runs: Runs) -> None:
    runs.add_all([64.0] * 5 + [70.0] * 5)
    said = runs.say(encoding="ascii")
    assert said.isascii()
    assert "_____#####  first 64 us" in said
    assert "64 us -> 70 us" in said


@needs_otava
def test_a_line_of_many_runs_is_as_wide_as_one_of_few_and_keeps_its_figures(runs: Runs) -> None:
    runs.add_all([64.0] * 150 + [70.0] * 150)
    (line,) = (line for line in runs.say().splitlines() if "first 64" in line)
    assert line.strip().startswith("▁" * 30 + "█" * 30 + "  first 64 µs, last 70 µs (unchanged), min 64 µs, max 70 µs")


def test_one_slow_run_among_many_is_seen() -> None:
    assert "█" in history_text.sparkline([64.0] * 500 + [80.0] + [64.0] * 499)


# What belongs into a series


def with_clock(us: float, clock: str) -> CaseRecord:
    made = record("net", us)
    return msgspec.structs.replace(made, sessions=[msgspec.structs.replace(made.sessions[0], clock=clock)])


@needs_otava
def test_another_clock_is_another_series(runs: Runs) -> None:
    for _ in range(6):
        runs.add(with_clock(64.0, "events"))
    for _ in range(6):
        runs.add(with_clock(50.0, "cuda_graph"))
    (case,) = history_answers.find(["net"], runs.folder, Asked(key=CARD.key)).histories[CARD.key]
    assert [(series.clock, len(series.points), series.steps) for series in case.series] == [
        ("cuda_graph", 6, []),
        ("events", 6, []),
    ]
    newest, _, older = runs.say().partition("measured otherwise, and never compared with the above:")
    assert "clock cuda_graph, 6 runs" in newest
    assert "clock events, 6 runs" in older


def test_runs_beside_a_base_and_disturbed_ones_are_left_out_and_counted(runs: Runs) -> None:
    runs.add(record("net", 64.0))
    runs.add(msgspec.structs.replace(record("net", 90.0), base="main"))
    runs.add(msgspec.structs.replace(record("net", 90.0), base="main"))
    runs.add(msgspec.structs.replace(record("net", 99.0), disturbed=True))
    said = runs.say()
    assert "1 run," in said
    assert "max 64 µs" in said
    assert "left out: 2 made beside a base (trtgate ab), 1 disturbed" in said


def test_a_case_of_which_all_runs_are_left_out_says_so(runs: Runs) -> None:
    runs.add(msgspec.structs.replace(record("net", 90.0), disturbed=True))
    assert "no run to show\n  left out: 1 disturbed" in runs.say()


def test_runs_are_in_the_order_they_were_recorded(runs: Runs) -> None:
    runs.add(record("net", 64.0), name="z.json")
    runs.add(record("net", 80.0), name="a.json")
    assert "first 64 µs, last 80 µs" in runs.say()


@needs_otava
def test_runs_are_in_the_order_they_were_recorded_in_whichever_zone(tmp_path: Path) -> None:
    """23:59 on 1 January in Los Angeles is 2 January, UTC, and later than 05:00 that day there."""
    folder = tmp_path / "runs"
    for name, recorded, us in (
        ("a", "2026-01-01T23:59:00-08:00", 80.0), ("b", "2026-01-02T05:00:00+00:00", 64.0),
        ("c", "2026-01-02T09:00:00", 90.0), ("d", "2026-01-01T12:00:00+14:00", 1.0),
    ):  # fmt: skip
        made = record("net", us)
        dated = msgspec.structs.replace(made, sessions=[msgspec.structs.replace(made.sessions[0], recorded=recorded)])
        files.write_json(folder / f"{name}.json", {**document(dated), "commit_info": None})
    found = history_answers.find(["net"], folder, Asked(key=CARD.key, since="2026-01-02"))
    ((case,),) = found.histories.values()
    assert [round(point.latency_us) for point in case.series[0].points] == [64, 80, 90]


def test_the_host_latency_is_taken_where_there_is_no_device(runs: Runs) -> None:
    made = record("net", 64.0)
    session = msgspec.structs.replace(made.sessions[0], metrics={"host": [[128.0]]})
    runs.add(msgspec.structs.replace(made, sessions=[session]), card=CPU)
    assert "host latency, clock cuda_graph, 1 run" in runs.say(key=CPU.key)


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        ({"id": "unknown", "branch": "(unknown)", "dirty": False, "time": None}, "(no commit, "),
        ({"id": "a" * 40, "branch": "main", "dirty": True}, "(aaaaaaaaa with changes on main, "),
        ("nonsense", "(no commit, "),
        ({"id": 7}, "(no commit, "),
    ],
)
@needs_otava
def test_commits_as_pytest_benchmark_writes_them(runs: Runs, commit: Any, said: str) -> None:
    for us in [64.0] * 5 + [70.0] * 5:
        runs.add(record("net", us), commit=commit)
    assert f"005.json {said}" in runs.say()


# Which runs and cases


def test_broken_and_foreign_files_are_named_skipped_and_kept(runs: Runs) -> None:
    runs.add(record("net", 64.0))
    broken, foreign = runs.folder / "broken.json", runs.folder / "foreign.json"
    broken.write_text('{"trtgate": ')
    foreign.write_text("{}")
    lines = runs.say().splitlines()
    skipped = [line for line in lines if line.startswith("skipped: ")]
    assert len(skipped) == 2
    assert "broken.json is not valid JSON" in skipped[0]
    assert "foreign.json is not one of trtgate's files" in skipped[1]
    assert broken.exists()
    assert foreign.exists()


def test_names_of_others_do_not_reach_the_terminal_raw(runs: Runs) -> None:
    commit = {"id": "c\x1b]0;", "branch": NASTY, "dirty": False}
    for us in [64.0] * 5 + [70.0] * 5:
        runs.add(record(f"net{NASTY}", us), commit=commit)
    (runs.folder / f"broken{NASTY.replace('/', '')}.json").write_text("{")
    said = runs.say("net*")
    assert all(character.isprintable() for character in said.replace("\n", ""))
    assert said.count("skipped: ") == 1
    with pytest.raises(TrtgateError) as caught:
        runs.say("unknown")
    assert str(caught.value).isprintable()


def test_cases_are_chosen_by_patterns(runs: Runs) -> None:
    runs.add(*(record(case, 64.0) for case in ("a-net", "b-net", "other[1]")))
    found = history_answers.find(["*-net", "a*", "other[1]"], runs.folder, Asked(key=CARD.key))
    assert [case.case_id for case in found.histories[CARD.key]] == ["a-net", "b-net", "other[1]"]


def test_an_unknown_case_names_the_nearest(runs: Runs) -> None:
    runs.add(record("resnet18", 64.0))
    with pytest.raises(TrtgateError, match="has a case 'resnet81'; did you mean 'resnet18'"):
        runs.say("resnet81")


def test_a_case_of_another_accelerator_alone_is_not_said_to_be_nowhere(runs: Runs) -> None:
    runs.add(record("net", 64.0))
    runs.add(record("mobile", 64.0), card=OTHER_CARD)
    with pytest.raises(
        TrtgateError, match=f"no run of {CARD.key} under .* has a case 'mobile'; those of {OTHER_CARD.key} have"
    ):
        runs.say("mobile")


def test_a_run_is_counted_once_however_many_files_hold_it(runs: Runs) -> None:
    for name in ("a.json", "b.json"):
        runs.count = 0
        runs.add(msgspec.structs.replace(record("net", 90.0), disturbed=True), name=name)
    assert "left out: 1 disturbed" in runs.say()


def test_another_accelerator_is_not_mixed_in(runs: Runs) -> None:
    runs.add(record("net", 64.0))
    runs.add(record("net", 90.0), card=OTHER_CARD)
    assert "1 run," in runs.say()
    with pytest.raises(TrtgateError, match=f"no run under .* is of tpu; .*: {OTHER_CARD.key}, {CARD.key}"):
        runs.say(key="tpu")


# The command


@pytest.fixture
def command(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(runs.folder.parent)
    monkeypatch.setattr(accelerator, "detect", lambda: CARD)
    return lambda *arguments: CliRunner().invoke(app, ["history", *arguments])


def test_the_command_takes_this_machines_runs(runs: Runs, command: Callable[..., Any]) -> None:
    runs.folder = runs.folder.parent / ".trtgate" / "runs"
    runs.add(record("net", 64.0))
    result = command("net", "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert "first 64" in result.stdout
    ((case, *_),) = json.loads(Path("out.json").read_text())["histories"].values()
    (point,) = case["series"][0]["points"]
    assert (point["run"], point["latency_us"]) == ("001.json", pytest.approx(64.0))


def test_a_name_that_is_no_utf8_is_written_escaped(runs: Runs, command: Callable[..., Any]) -> None:
    path = runs.add(record("net", 64.0))
    os.rename(path, os.path.join(os.fsencode(runs.folder), b"\xff.json"))
    result = command("net", "--runs", str(runs.folder), "--json", "out.json")
    assert result.exit_code == 0, result.output
    ((case,),) = json.loads(Path("out.json").read_text())["histories"].values()
    assert case["series"][0]["points"][0]["run"] == "\\udcff.json"


def test_no_runs_at_all_is_a_usage_error(command: Callable[..., Any]) -> None:
    result = command("net")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "there are no saved runs under" in result.stderr


def test_without_otava_one_line_says_how_to_get_it(
    runs: Runs, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "otava.analysis", None)
    runs.add_all([64.0] * 5)
    result = command("net", "--runs", str(runs.folder))
    (line,) = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (4, "")
    assert "pip install 'trtgate[history]'" in line
