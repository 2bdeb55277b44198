"""A case that its launches can't tell from noise is measured by as many again, where that might tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.scripted_measurer import CASE, VOID, ScriptedMeasurer, judged, measurement, record, turn
from trtgate.gate.case_result import CaseResult
from trtgate.records.measurement import Build, Turn
from trtgate.verdict import Verdict

BASELINE = (100.0, 98.6, 101.3, 100.8, 99.3)
NOISY, STEADY, WILD = (98.5, 102.0, 100.5), (100.0, 99.0, 101.0), (96.0, 105.0, 103.0)


def run(
    first: Sequence[float | Turn], *more: Sequence[float | Turn], **given: Any
) -> tuple[CaseResult, list[str], list[str]]:
    """Measure what a test says, three launches a time, at a limit of 3 %: result, what was asked for, notices."""
    build = Build(build_s=1.0)
    script = ScriptedMeasurer([measurement(*first, build=build)], [measurement(*one) for one in more])
    result = judged(script, **{"record": record(BASELINE), **given})
    return result, script.asked, [notice.text for notice in result.notices]


def test_noisy_launches_are_joined_by_as_many_fresh_ones() -> None:
    result, asked, lines = run(NOISY, STEADY)
    assert result.verdict is Verdict.UNCHANGED
    assert len(result.measurement.launches) == 6
    assert result.measurement.seconds == 4.0
    assert asked == ["measure", "fresh"]
    assert lines == [f"{CASE.id}: 3 launches could not tell; judged by 6"]


def test_they_are_measured_once_however_noisy_they_are() -> None:
    result, asked, _ = run(NOISY, WILD, STEADY)
    assert result.verdict is Verdict.UNDERPOWERED
    assert asked == ["measure", "fresh"]


@pytest.mark.parametrize("launches_us", [(100.0, 100.5, 99.5), WILD])
def test_none_are_measured_where_these_tell_or_more_would_not(launches_us: Sequence[float]) -> None:
    result, asked, lines = run(launches_us, STEADY)
    assert len(result.measurement.launches) == 3
    assert (asked, lines) == (["measure"], [])


def test_a_suspect_is_measured_once_more_and_no_further() -> None:
    result, asked, lines = run((110.0, 110.1, 109.9), STEADY, STEADY)
    assert result.verdict is Verdict.UNCONFIRMED
    assert (asked, lines) == (["measure", "fresh"], [])


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ((VOID, 100.0, 100.0), "4 of 12 blocks do not count: hot"),
        ((turn(100.0, clock="cuda_events"),) * 3, "cuda_events"),
        ((turn(100.0, canary_us=600.0),) * 3, "another state"),
    ],
)
def test_further_launches_that_can_not_be_compared_do_not_count(further: Sequence[float | Turn], words: str) -> None:
    result, _, lines = run(NOISY, further)
    assert result.verdict is Verdict.UNDERPOWERED
    assert result.judgements
    assert not result.stored
    assert len(result.measurement.launches) == 3
    assert words in lines[0]
    assert "further launches do not count" in lines[0]


def test_while_recording_more_are_measured_too_since_only_what_is_proven_is_stored() -> None:
    result, asked, _ = run(NOISY, STEADY, update=True)
    assert (result.verdict, result.stored, asked) == (Verdict.UNCHANGED, True, ["measure", "fresh"])
    result, asked, lines = run(NOISY, WILD, update=True)
    assert (result.verdict, result.stored, asked) == (Verdict.UNDERPOWERED, False, ["measure", "fresh"])
    assert lines[-1].startswith(f"{CASE.id}: not stored, since it is underpowered; to store it: ")


def test_where_too_few_sessions_are_the_reason_more_launches_would_not_tell() -> None:
    """The prior's 0.1 % between sessions is what a limit of 0.3 % fails at."""
    limit = {"limit_of": lambda _metric: 0.003, "tests": 1, "record": record((100.0, 100.0, 100.0))}
    result, asked, _ = run((100.0, 100.0, 100.0), STEADY, **limit)
    assert (result.verdict, asked) == (Verdict.UNDERPOWERED, ["measure"])
    assert run(NOISY, STEADY)[1] == ["measure", "fresh"]


def test_without_a_baseline_no_more_are_measured() -> None:
    result, asked, _ = run(WILD, STEADY, record=None)
    assert (result.verdict, asked) == (Verdict.NEW, ["measure"])
