"""What a verdict means for a test, whatever kind of test it is."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from trtgate.common.notices import Notice, Severity
from trtgate.gate.outcome import PROBLEM, Kind, Outcome, outcome
from trtgate.suite.expected_failures import ExpectedFailure
from trtgate.suite.quarantines import Quarantine

HELD = Quarantine("issue 12", datetime.date(9999, 12, 31))
ENDED = Quarantine("issue 7", datetime.date(2000, 1, 1))
KNOWN = ExpectedFailure("returns NaN")


def of(verdict: str, **given: Any) -> Outcome:
    return outcome(verdict, "net", "net is so", **given)


@pytest.mark.parametrize("verdict", ["", "unchanged", "improved", "new", "changed"])
def test_what_is_no_worse_passes_in_silence(verdict: str) -> None:
    assert of(verdict) == Outcome()


def test_what_got_worse_fails_with_where_and_what_to_do() -> None:
    found = of("regressed", where="where: layer4", advice="if that is intended: accept")
    assert (found.kind, found.text) == (Kind.FAILED, "net is so\nwhere: layer4\nif that is intended: accept")
    assert of("regressed", advice=". If that is intended: accept").text == "net is so. If that is intended: accept"


def test_what_moved_though_it_is_the_same_fails_whatever_excuses_others() -> None:
    for given in ({}, {"quarantine": HELD}, {"accepted": True}, {"updating": True}):
        found = of("improved", moved="net moved", **given)
        assert (found.kind, found.text) == (Kind.FAILED, "net moved\nnet is so")


def test_what_is_the_same_passes_where_a_verdict_is_required() -> None:
    assert of("same", require={"baseline", "verdict", "gpu"}) == Outcome()


def test_changed_layers_fail_where_that_is_strict() -> None:
    assert of("changed", strict=True, advice=" (--trtgate-strict-layers)").kind is Kind.FAILED
    assert of("changed", strict=True, accepted=True).kind is Kind.PASSED


def test_what_is_accepted_or_quarantined_passes_with_a_line() -> None:
    assert of("regressed", accepted=True) == Outcome(notices=(Notice("accepted: net is so"),))
    said = (Notice("quarantined until 9999-12-31 (issue 12): net is so"), Notice("where: layer4"))
    assert of("regressed", quarantine=HELD, where="where: layer4") == Outcome(notices=said)
    assert of("unconfirmed").notices == (Notice("unconfirmed: net is so"),)


@pytest.mark.parametrize("verdict", ["underpowered", "incomparable"])
def test_no_verdict_skips_and_fails_where_one_is_required(verdict: str) -> None:
    notices = (Notice(f"{verdict}: net is so"),)
    assert of(verdict) == Outcome(kind=Kind.SKIPPED, text="net is so", notices=notices)
    found = of(verdict, require={"verdict"})
    assert (found.kind, found.text) == (Kind.FAILED, "net is so (--trtgate-require=verdict)")
    assert of(verdict, require={"verdict"}, quarantine=HELD).kind is Kind.SKIPPED
    named = outcome(verdict, "net", "net is so (docs: underpowered)", require={"verdict"})
    assert named.text == "net is so (--trtgate-require=verdict) (docs: underpowered)"


@pytest.mark.parametrize("verdict", ["underpowered", "incomparable"])
def test_a_suspicion_that_is_neither_confirmed_nor_refuted_is_loud_unless_it_is_accepted(verdict: str) -> None:
    found = of(verdict, suspected=True)
    assert (found.kind, found.notices) == (Kind.SKIPPED, (Notice(f"{verdict}: net is so", Severity.WARNING),))
    assert found.notices[0].loud
    assert of(verdict, suspected=True, require={"verdict"}).kind is Kind.FAILED
    assert of(verdict, suspected=True, accepted=True) == Outcome(notices=(Notice("accepted: net is so"),))


def test_what_is_new_fails_where_a_baseline_is_required_and_not_being_recorded() -> None:
    found = of("new", require={"baseline"}, advice=": record it")
    assert (found.kind, found.text) == (Kind.FAILED, "net is so (--trtgate-require=baseline): record it")
    assert of("new", require={"baseline"}, updating=True) == Outcome()
    assert of("new", require={"baseline"}, quarantine=HELD) == Outcome()


@pytest.mark.parametrize("verdict", ["unchanged", "regressed", "underpowered", "new"])
def test_a_quarantine_that_is_over_fails_whatever_was_measured(verdict: str) -> None:
    found = of(verdict, quarantine=ENDED, where="where: layer4")
    assert found.kind is Kind.FAILED
    assert "net: its quarantine (issue 7) ended on 2000-01-01" in found.text
    assert found.text.endswith(" (docs: quarantine-ended)")
    assert found.text.startswith("net is so\n") is (verdict == "regressed")
    assert not of(verdict, quarantine=ENDED, accepted=True).text.startswith("net is so")


def test_a_problem_fails_is_expected_or_quarantined() -> None:
    assert of(PROBLEM) == Outcome(kind=Kind.FAILED, text="net is so (docs: build-failed)")
    known_why = outcome(PROBLEM, "net", "net is wrong (docs: wrong-output)")
    assert known_why.text == "net is wrong (docs: wrong-output)"
    known = of(PROBLEM, expected_failure=KNOWN, quarantine=HELD)
    assert (known.kind, known.text) == (
        Kind.EXPECTED_FAILURE,
        "known to fail (returns NaN): net is so (docs: build-failed)",
    )
    held = of(PROBLEM, quarantine=HELD)
    assert (held.kind, held.notices) == (Kind.SKIPPED, (Notice(held.text),))
    assert of(PROBLEM, quarantine=ENDED).kind is Kind.FAILED


def test_what_is_known_to_fail_and_passes_fails() -> None:
    found = of("", expected_failure=KNOWN)
    assert found.kind is Kind.FAILED
    said = "net passed, and is known to fail (returns NaN): take that out of the suite (docs: failure-gone)"
    assert found.text == said


def test_severity_is_a_field_and_not_how_a_text_begins() -> None:
    assert str(Notice("gone", Severity.MISSING)) == "MISSING: gone"
    plain = Notice("MISSING: so it is called")
    assert (str(plain), plain.failed, plain.loud) == ("MISSING: so it is called", False, False)
    assert [Notice("", one).failed for one in Severity] == [True, True, False, False, False, False]
    assert [Notice("", one).loud for one in Severity] == [True, True, True, True, False, False]
