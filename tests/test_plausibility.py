"""Sessions that hold what can't be a latency: they are told in one line, used for nothing, and stay stored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtgate.common.errors import TrtgateError
from trtgate.gate import baselines, plausibility
from trtgate.gate.baseline_record import CaseRecord, StoredSession

from .in_process import RECORD, InProcess, command
from .test_baselines import record, run_of, stored

ALPHA = "alpha-eager-fp32-b1"
ABSURD = (1e-320, 1e308, 1e-6, 2e8)
"""Beside latencies of about 100 µs."""


def session(*launches: list[float]) -> StoredSession:
    return StoredSession(recorded="2026-01-01", uuid="", clock="host_mean", metrics={"host": list(launches)})


LATENCIES = st.floats(plausibility.SHORTEST_US * 30, plausibility.LONGEST_US / 30)
NOISE = st.lists(st.floats(1 / 30, 30), min_size=1, max_size=12)


@given(LATENCIES, st.lists(NOISE, min_size=1, max_size=5))
def test_what_lies_within_a_factor_of_thirty_is_never_absurd(middle: float, factors: list[list[float]]) -> None:
    assert plausibility.absurd(session(*[[middle * one for one in launch] for launch in factors])) == ""


@given(LATENCIES, st.lists(NOISE, min_size=2, max_size=5), st.floats(min_value=0, exclude_min=True), st.data())
def test_one_value_that_is_no_latency_or_lies_far_from_all_others_is_absurd(
    middle: float, factors: list[list[float]], value: float, data: st.DataObject
) -> None:
    """At whatever place, however small or large, up to infinity."""
    launches = [[middle * one for one in (*launch, 1.0)] for launch in factors]
    apart = value / middle if value < math.inf else value
    far = not 1 / (30 * plausibility.MOST_APART) <= apart <= 30 * plausibility.MOST_APART
    none = not plausibility.SHORTEST_US <= value <= plausibility.LONGEST_US
    data.draw(st.sampled_from(launches)).append(value)
    if far or none:
        assert "host latency" in plausibility.absurd(session(*launches))
    elif 1 / 30 <= apart <= 30:
        assert plausibility.absurd(session(*launches)) == ""


def absurd_record(us: float) -> CaseRecord:
    """Return a case of three sessions, the second with one block of so many microseconds."""
    good = record("a", 100.0).sessions[0]
    bad = msgspec.structs.replace(good, recorded="2026-01-02", metrics={"device": [[100.0, 101.0, us]]})
    return msgspec.structs.replace(record("a", 100.0), sessions=[good, bad, good])


@pytest.mark.parametrize("us", ABSURD)
@pytest.mark.parametrize("where", ["sessions", "anchor"])
def test_an_absurd_session_is_told_and_not_used(tmp_path: Path, us: float, where: str) -> None:
    good, bad, other = absurd_record(us).sessions
    of_file = {"sessions": [good, other], "anchor": [bad]} if where == "anchor" else {"sessions": [good, bad, other]}
    found = run_of(tmp_path, msgspec.structs.replace(record("a", 100.0), **of_file))
    assert found.cases["a"].sessions == [good, other]
    assert found.cases["a"].anchor == []
    (line,) = found.unused
    assert line.startswith(f"{tmp_path / 'run.json'}: case a: the session of 2026-01-02 is not used: ")
    assert "\n" not in line


def test_what_is_not_used_stays_stored_whatever_is_stored_later(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    baselines.update(folder, run_of(tmp_path, record("a", 100.0)), ["a"])
    document = json.loads(stored(folder).read_text())
    bad = msgspec.to_builtins(absurd_record(1e308).sessions[1])
    document["benchmarks"][0]["extra_info"]["trtgate"]["sessions"].append(bad)
    stored(folder).write_text(json.dumps(document))
    for number in range(25):
        baselines.update(folder, run_of(tmp_path, record("a", 100.0 + number)), ["a"])
    baselines.update(folder, run_of(tmp_path, record("a", 50.0, "improved")), ["a"])
    found = baselines.read(stored(folder))
    assert [len(found.unused), len(found.cases["a"].sessions)] == [1, 1]
    assert msgspec.to_builtins(found.cases["a"].unused) == [bad]


def test_an_absurd_session_is_not_stored_and_costs_no_other_case(tmp_path: Path) -> None:
    folder, (_, bad, _) = tmp_path / "baselines", absurd_record(1e-320).sessions
    run = run_of(tmp_path, msgspec.structs.replace(record("a", 100.0), sessions=[bad]), record("b", 100.0))
    refused, done = baselines.update(folder, run, ["a", "b"])
    assert baselines.describe(refused).startswith("a: the session of 2026-01-02 is not used: no device latency is ")
    assert (done.refused, list(baselines.read(stored(folder)).cases)) == ("", ["b"])
    before = stored(folder).read_bytes()
    baselines.update(folder, run, ["a"])
    assert stored(folder).read_bytes() == before


def test_a_case_without_a_session_that_can_be_used_is_named_and_can_be_removed(tmp_path: Path) -> None:
    folder, (_, bad, _) = tmp_path / "baselines", absurd_record(1e-320).sessions
    stored(folder).parent.mkdir(parents=True)
    made = run_of(tmp_path, msgspec.structs.replace(record("a", 100.0), sessions=[bad]), record("b", 100.0))
    made.path.rename(stored(folder))
    with pytest.raises(TrtgateError, match=r"case a has no session that can be used.*trtgate baseline remove a, and"):
        baselines.read_baseline(stored(folder))
    status, said = command("baseline", "remove", "a", "--baselines", str(folder))
    assert (status, said) == (0, f"removed from {stored(folder)}: a\n")
    assert list(baselines.read_baseline(stored(folder)).cases) == ["b"]


# In real runs


def put(file: Path, us: float) -> dict[str, Any]:
    """Add to alpha's sessions one more, with one block of so many microseconds; returns it."""
    document = json.loads(file.read_text())
    (sessions,) = [
        one["extra_info"]["trtgate"]["sessions"]
        for one in document["benchmarks"]
        if one["extra_info"]["trtgate"]["case"] == ALPHA
    ]
    (launches,) = sessions[0]["metrics"].values()
    bad = {**sessions[0], "recorded": "2026-01-02", "metrics": {"host": [[us, *launches[0][1:]], *launches[1:]]}}
    sessions.append(bad)
    file.write_text(json.dumps(document))
    return bad


@pytest.mark.parametrize("us", ABSURD[:2])
def test_an_absurd_block_in_a_stored_session_hides_no_slow_case(folder: Any, us: float) -> None:
    file = folder.baseline("alpha")
    put(file, us)
    before = file.read_bytes()
    folder.suite("alpha")
    slow = folder.gate("--benchmark-compare", ALPHA_MS=40)
    assert slow.ret == pytest.ExitCode.TESTS_FAILED
    line = (
        f"WARNING: *latency.json: case {ALPHA}: the session of 2026-01-02 is not used: no host latency is {us:.3g} µs "
        "(docs: baseline-broken)"
    )
    slow.stdout.fnmatch_lines([f"*{ALPHA} is slower: host latency*(docs: regressed-host)", line])
    assert file.read_bytes() == before


def test_recording_beside_an_absurd_session_keeps_it_and_goes_on(here: InProcess) -> None:
    assert here.run(*RECORD)[0] == 0
    (file,) = here.path.glob("baselines/*/latency.json")
    bad = put(file, 1e308)
    status, said = here.run(*RECORD, "--trtgate-accept=*")
    assert status == 0
    assert said.count("the session of 2026-01-02 is not used") == 1
    found = baselines.read(file).cases[ALPHA]
    assert (len(found.sessions), msgspec.to_builtins(found.unused)) == (2, [bad])
    status, said = command("baseline", "show", str(file))
    assert (status, said.count("the session of 2026-01-02 is not used")) == (0, 1)
