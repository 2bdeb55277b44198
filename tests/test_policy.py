"""What fails a run: limits of a suite, of a test and of a command; quarantines; no second chances by other plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtgate.common.errors import TrtgateError
from trtgate.pytest_plugin import rerun_plugins

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED

MODEL = """

@trtgate.model(frontends=("eager",), precisions=("fp32",), {keywords})
def {name}(batch):
    import torch

    def forward(x):
        sleep({name!r})
        return x + 1

    return made(forward, torch.ones(batch, 4))
"""

OWN_TEST = """
import pytest

@pytest.mark.trtgate_limit({limits})
def test_mine(benchmark, compiled, latency_gate):
    latency_gate(benchmark, compiled)
"""


def model(name: str, keywords: str) -> str:
    return MODEL.format(name=name, keywords=keywords)


def sessions(file: Path) -> dict[str, int]:
    """Return the stored sessions of each case's model."""
    records = [entry["extra_info"]["trtgate"] for entry in json.loads(file.read_text())["benchmarks"]]
    return {record["case"].partition("-")[0]: len(record["sessions"]) for record in records}


# Limits


def test_a_marker_beats_the_suite_and_the_command_line_beats_both(folder: Any) -> None:
    """Alpha is ten times slower: its marker allows that, its suite and the command line do not."""
    folder.baseline("alpha")
    folder.suite(more=model("alpha", "limits={'host': '1%'}"))
    (folder.path / "conftest.py").write_text(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items:\n"
        "        item.add_marker(pytest.mark.trtgate_limit(host='5000%'))\n"
    )
    done = folder.gate("--benchmark-compare", ALPHA_MS=20)
    assert done.ret == OK
    done.assert_outcomes(passed=2)

    held = folder.gate("--benchmark-compare", "--trtgate-limit=host=20%", ALPHA_MS=20)
    assert held.ret == FAILED
    held.assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("devise='1%'", "'devise' 'device'"),
        ("host='fast'", "'host=fast' host=1%"),
        ("'1%'", "device="),
        ("", "device="),
    ],
)
def test_a_marker_that_makes_no_sense(folder: Any, limits: str, words: str) -> None:
    folder.suite("alpha")
    (folder.path / "test_mine.py").write_text(OWN_TEST.format(limits=limits))
    result = folder.pytest("test_mine.py", "--collect-only")
    folder.refused(result, "test_mine.py::test_mine[alpha-eager-fp32-b1]", "trtgate_limit", *words.split())


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ("limits={'hots': 0.1}", ["model 'alpha'", "'hots'", "'host'"]),
        ("quarantine=trtgate.quarantine('x', until='soon')", ["quarantine", "'soon'", "2026-12-31"]),
    ],
)
def test_a_suite_whose_limits_or_quarantines_make_no_sense(folder: Any, keywords: str, words: list[str]) -> None:
    folder.suite(more=model("alpha", keywords))
    folder.refused(folder.gate(), "suite.py", *words)


# Quarantines

HELD = "quarantine=trtgate.quarantine('issue 12', until='9999-12-31')"
EXPIRED = "quarantine=trtgate.quarantine('issue 7', until='2000-01-01')"
BROKEN = f"""

@trtgate.model(frontends=("eager",), precisions=("fp32",), {HELD})
def broken(batch):
    raise RuntimeError("no luck")
"""


def test_a_quarantined_case_fails_nothing_until_its_day(folder: Any) -> None:
    """Alpha is slower, beta can't be compared, broken can't be built, fresh is not stored; ended's day is over."""
    stored = folder.baseline("alpha", "beta")
    with folder.edited(stored) as document:
        for entry in document["benchmarks"]:
            if entry["extra_info"]["trtgate"]["case"].startswith("beta"):
                entry["extra_info"]["trtgate"]["sessions"][0]["state"]["canary_us"] = {"hash": 9.0}
    held = "".join(model(name, HELD) for name in ("alpha", "beta", "fresh"))
    folder.suite(more=held + model("ended", EXPIRED) + BROKEN)
    done = folder.gate("--benchmark-compare", "--trtgate-require=baseline,verdict", "-rs", ALPHA_MS=20)
    assert done.ret == FAILED
    done.assert_outcomes(passed=6, skipped=3, failed=1)
    said = folder.output_of(done)
    done.stdout.re_match_lines_random(
        [
            r"quarantined until 9999-12-31 \(issue 12\): alpha-eager-fp32-b1 is slower.*",
            r"SKIPPED \[2\].*quarantined until 9999-12-31 \(issue 12\): model 'broken'.*RuntimeError: no luck",
            r"SKIPPED \[1\].*beta-eager-fp32-b1.*another state.*hash.*",
            r"E?\s*ended-eager-fp32-b1: its quarantine \(issue 7\) ended on 2000-01-01: take it out of the suite.*",
            r"alpha-eager-fp32-b1 .*regressed",
        ]
    )
    assert "MISSING" not in said
    assert "Traceback" not in said
    assert folder.saved_cases() == {f"{name}-eager-fp32-b1" for name in ("alpha", "beta", "fresh", "ended")}


def test_neither_a_quarantined_regression_nor_an_expired_quarantine_is_stored(folder: Any) -> None:
    stored = folder.baseline("alpha")
    folder.suite(more=model("alpha", HELD) + model("ended", EXPIRED) + model("fresh", HELD))
    done = folder.gate("--trtgate-update-baselines", "-k", "test_latency", ALPHA_MS=20)
    done.assert_outcomes(passed=2, failed=1)
    assert sessions(stored) == {"alpha": 1, "fresh": 1}


# Other plugins' re-runs

RERUNNING = """
def pytest_addoption(parser):
    {options}

def pytest_configure(config):
    config.addinivalue_line("markers", "flaky: re-run")
"""
RERUNFAILURES = """
    for name in ("--reruns", "--force-reruns", "--reruns-delay"):
        parser.addoption(name, type=int)
    parser.addini("reruns", "", type="string")
"""
RETRY = """
    for name in ("--retries", "--retry-delay"):
        parser.addoption(name, type=int)
    parser.addini("retries", "", default=0, type="string")
"""
FLAKY = """
    parser.addoption("--force-flaky", action="store_true")
    parser.addoption("--max-runs", type=int)
"""
UNRELATED = 'parser.addoption("--retries", type=int)'


@pytest.mark.parametrize(
    ("options", "arguments", "marker", "named"),
    [
        (RERUNFAILURES, "", "", ""),
        (RERUNFAILURES, "--reruns=2", "", "--reruns=2"),
        (RERUNFAILURES, "--force-reruns=1", "flaky(reruns=0)", "--force-reruns=1"),
        (RERUNFAILURES, "-o reruns=3", "", "ini key reruns=3"),
        (RERUNFAILURES, "-o reruns=3 --reruns=0", "", ""),
        (RERUNFAILURES, "", "flaky", "marker flaky"),
        (RERUNFAILURES, "", "flaky(reruns=2)", "marker flaky"),
        (RERUNFAILURES, "--reruns=2", "flaky(reruns=0)", ""),
        (RETRY, "", "", ""),
        (RETRY, "--retries=1", "", "--retries=1"),
        (RETRY, "-o retries=1", "", "ini key retries=1"),
        (RETRY, "-o retries=0", "", "any text there retries"),
        (RETRY, "", "flaky(retries=1)", "marker flaky"),
        (FLAKY, "", "", ""),
        (FLAKY, "--force-flaky", "", "--force-flaky"),
        (FLAKY, "", "flaky(max_runs=3)", "marker flaky"),
        ("pass", "", "flaky", ""),
        (UNRELATED, "--retries=5", "", ""),
    ],
)
def test_who_would_run_a_test_again(
    pytester: pytest.Pytester, options: str, arguments: str, marker: str, named: str
) -> None:
    pytester.makeconftest(RERUNNING.format(options=options))
    mark = f"@pytest.mark.{marker}" if marker else ""
    pytester.makepyfile(f"import pytest\n\n{mark}\ndef test_it(): ...\n")
    items, _ = pytester.inline_genitems("-p", "no:trtgate.plugin", *arguments.split())
    assert len(items) == 1
    if not named:
        rerun_plugins.refuse(items)
        return
    with pytest.raises(TrtgateError, match=r"inflates the error rate.* drop it") as caught:
        rerun_plugins.refuse(items)
    assert named in str(caught.value)


def test_re_runs_are_refused_where_a_verdict_is_at_stake(folder: Any) -> None:
    folder.baseline("alpha")
    folder.suite("alpha")
    (folder.path / "conftest.py").write_text(RERUNNING.format(options=RERUNFAILURES))
    result = folder.gate("--benchmark-compare", "--reruns=2")
    folder.refused(result, "--reruns=2", "inflates the error rate", "fresh launches", "drop it")
    folder.gate("--benchmark-disable", "--reruns=2").assert_outcomes(passed=1, skipped=1)
