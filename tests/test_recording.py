"""A recording that left something out: it is red, and names each case that was not stored and why."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from trtgate.records.measurement import Capture, CaseMeasurement

from .in_process import RECORD, InProcess, ScriptedSession, sessions_of

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
ALPHA, BETA = "alpha-eager-fp32-b1", "beta-eager-fp32-b1"
measure = ScriptedSession.measure


def stored(here: InProcess) -> dict[str, int]:
    """Return how many sessions each case has."""
    found: dict[str, int] = {}
    for file in here.path.glob("baselines/*/latency.json"):
        found |= {name.partition("[")[2][:-1]: len(sessions) for name, sessions in sessions_of(file).items()}
    return found


def edited(here: InProcess, case_id: str, **fields: Any) -> None:
    """Change fields of a case's stored sessions."""
    (file,) = here.path.glob("baselines/*/latency.json")
    document = json.loads(file.read_text())
    for one in document["benchmarks"]:
        record = one["extra_info"]["trtgate"]
        if record["case"] == case_id:
            record["sessions"] = [{**session, **fields} for session in record["sessions"]]
    file.write_text(json.dumps(document))


def lines(said: str, *words: str) -> list[str]:
    return [line for line in said.splitlines() if all(word in line for word in words)]


def disturb(monkeypatch: pytest.MonkeyPatch, case_id: str) -> None:
    """Let more blocks of a case be void than count."""

    def disturbed(session: ScriptedSession, asked: str, *others: Any) -> CaseMeasurement:
        found = measure(session, asked, *others)
        if asked != case_id:
            return found
        capture = Capture(blocks_us=[100.0], replays=1, void=["other processes took the CPU"] * 4)
        turn = msgspec.structs.replace(found.launches[0].turns[0], captures=[capture])
        return msgspec.structs.replace(found, launches=[msgspec.structs.replace(found.launches[0], turns=[turn])])

    monkeypatch.setattr(ScriptedSession, "measure", disturbed)


@pytest.mark.parametrize("before", [False, True], ids=["new", "recorded before"])
def test_void_blocks_are_no_recording(here: InProcess, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    if before:
        assert here.run(*RECORD)[0] == OK
    disturb(monkeypatch, ALPHA)
    status, said = here.run(*RECORD, "--trtgate-accept=*")
    assert status == FAILED
    (line,) = lines(said, "ERROR", ALPHA, "not stored")
    assert line.endswith(
        "4 of 5 blocks do not count: other processes took the CPU; record it again when nothing else runs "
        "(docs: not-stored)"
    )
    assert "! red, though no test failed: a line above says why: not-stored !" in said
    assert stored(here) == ({ALPHA: 1, BETA: 2} if before else {BETA: 1})


def test_what_can_not_be_compared_is_red_until_it_is_accepted(here: InProcess) -> None:
    assert here.run(*RECORD)[0] == OK
    edited(here, ALPHA, state={"canary_us": {"hash": 9.0}})
    status, said = here.run(*RECORD, "-q")
    assert status == FAILED
    (line,) = lines(said, "ERROR", ALPHA, "not stored")
    assert "this machine is in another state than when its baseline was recorded" in line
    assert line.endswith(f"to store it: --trtgate-update-baselines --trtgate-accept '{ALPHA}' (docs: not-stored)")
    status, said = here.run(*RECORD, f"--trtgate-accept={ALPHA}")
    assert status == OK
    assert lines(said, "WARNING", ALPHA, "stored although it is incomparable")


def test_what_can_not_be_told_from_noise_is_a_loud_line(here: InProcess) -> None:
    """One session of a CPU proves nothing at 10 %."""
    assert here.run(*RECORD)[0] == OK
    status, said = here.run(*RECORD)
    assert status == OK
    assert len(lines(said, "WARNING", "not stored, since it is underpowered")) == 2
    assert stored(here) == {ALPHA: 1, BETA: 1}


LEAVES_ALPHA_OUT = {
    "a skip marker": """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if "test_latency[alpha" in item.nodeid:
            item.add_marker(pytest.mark.skip(reason="slow"))
""",
    "dropped": """
def pytest_collection_modifyitems(items):
    items[:] = [one for one in items if "test_latency[alpha" not in one.nodeid]
""",
    "a fixture that skips": """
import pytest

@pytest.fixture(autouse=True)
def no_time(request):
    if "test_latency[alpha" in request.node.nodeid:
        pytest.skip("slow")
""",
    "its samples taken": """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if "test_latency[alpha" in item.nodeid and call.when == "call":
        item.funcargs["benchmark"].extra_info.clear()
    return report
""",
}


@pytest.mark.parametrize("how", LEAVES_ALPHA_OUT)
def test_what_something_else_leaves_out_is_named(here: InProcess, how: str) -> None:
    (here.path / "conftest.py").write_text(LEAVES_ALPHA_OUT[how])
    status, said = here.run(*RECORD)
    assert status == FAILED
    (line,) = lines(said, "ERROR", ALPHA)
    assert line.startswith(f"ERROR: {ALPHA}: not stored: ")
    assert stored(here) == {BETA: 1}


def test_what_is_missing_is_said_once(here: InProcess) -> None:
    assert here.run(*RECORD)[0] == OK
    (here.path / "conftest.py").write_text(LEAVES_ALPHA_OUT["dropped"])
    status, said = here.run(*RECORD)
    assert status == FAILED
    assert lines(said, ALPHA) == [
        f"MISSING: {ALPHA} is in the baseline and was not measured: not in the suite or not run (docs: missing-case)"
    ]


@pytest.mark.parametrize("options", [("-k", "beta"), ("--trtgate-models=beta",), ("-m", "trtgate_accuracy")])
def test_what_the_user_left_out_is_no_mistake(here: InProcess, options: tuple[str, ...]) -> None:
    status, said = here.run(*RECORD, *options)
    assert status == OK
    assert "ERROR" not in said


@pytest.mark.parametrize(
    "how", ["quarantine=trtgate.quarantine('a driver', until='2999-01-01')", "frontends=('dynamo',)"]
)
def test_what_the_suite_says_of_a_case_is_no_mistake(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    suite = here.path / "suite.py"
    text, at = suite.read_text(), "def alpha("
    head, tail = text.split(at)
    old = '@trtgate.model(frontends=("eager",), precisions=("fp32",))\n'
    new = old.replace('frontends=("eager",)', how) if "frontends" in how else old.replace("))", f"), {how})", 1)
    suite.write_text(head.removesuffix(old) + new + at + tail)
    disturb(monkeypatch, ALPHA)
    status, said = here.run(*RECORD)
    assert status == OK, said
    assert stored(here) == {BETA: 1}


def test_what_another_run_started_anew_meanwhile_is_named(here: InProcess) -> None:
    """Both cases are proven unchanged against sessions that are gone when they are to be stored."""
    assert here.run(*RECORD)[0] == OK
    (here.path / "conftest.py").write_text(STARTS_ALPHA_ANEW)
    status, said = here.run(*RECORD, "--trtgate-limit=host=5000%")
    assert status == FAILED
    (line,) = lines(said, "ERROR", "not stored")
    refused = f"{ALPHA}: another run has started it anew meanwhile: record it again"
    assert line == f"ERROR: not stored: {refused} (docs: not-stored)"
    assert stored(here) == {ALPHA: 1, BETA: 2}


STARTS_ALPHA_ANEW = """
import json
import pathlib

import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    (file,) = pathlib.Path().glob("baselines/*/latency.json")
    document = json.loads(file.read_text())
    record = document["benchmarks"][0]["extra_info"]["trtgate"]
    record["sessions"][0]["recorded"] = "2026-12-24"
    file.write_text(json.dumps(document))
"""


@pytest.mark.parametrize("accepted", [False, True])
def test_what_fails_for_want_of_a_verdict_is_stored_only_where_it_is_accepted(here: InProcess, accepted: bool) -> None:
    """The first session of a card is stored unproven; not where that is a failure."""
    assert here.run(*RECORD)[0] == OK
    for case_id in (ALPHA, BETA):
        edited(here, case_id, uuid="ANOTHER")
    options = ("--trtgate-require=verdict", "-m", "trtgate_latency", *["--trtgate-accept=*"] * accepted)
    status, said = here.run(*RECORD, *options)
    assert status == (OK if accepted else FAILED), said
    assert stored(here) == dict.fromkeys((ALPHA, BETA), 1 + accepted)


def test_a_broken_baseline_can_be_recorded_anew_as_its_line_says(here: InProcess) -> None:
    assert here.run(*RECORD)[0] == OK
    (file,) = here.path.glob("baselines/*/latency.json")
    whole = json.loads(file.read_text())
    record = whole["benchmarks"][0]["extra_info"]["trtgate"]
    no_session = json.dumps(whole).replace(json.dumps(record["sessions"]), "[]")
    for broken in (file.read_text()[:1000], "", "[]", json.dumps({**whole, "benchmarks": []}), no_session):
        file.write_text(broken)
        status, said = here.run(*RECORD)
        assert status == pytest.ExitCode.USAGE_ERROR
        (line,) = lines(said, "ERROR", "latency.json")
        assert "delete it and record it anew" in line or "not one of trtgate's files" in line
        assert file.read_text() == broken
        file.unlink()
        assert here.run(*RECORD)[0] == OK
        assert set(stored(here)) == {ALPHA, BETA}


def test_a_recording_does_not_advise_what_it_does(here: InProcess) -> None:
    status, said = here.run(*RECORD, "-v")
    assert status == OK
    assert len(lines(said, "nothing is stored for", "; this run records them")) == 2
    assert lines(said, "add --trtgate-update-baselines") == []
