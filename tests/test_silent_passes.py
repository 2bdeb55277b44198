"""What pytest-benchmark lets pass in silence, shown on it, and what trtgate says in the same situation.

A test of plain benchmarks is one of pytest-benchmark itself and runs when its version changes (tests/conftest.py).

Slow is 40 ms instead of 2 ms: far beyond what one stored session leaves to noise on a CPU.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

SLOW_MS = 40
FASTER_THAN_MS = 80
ALPHA, BETA = "alpha-eager-fp32-b1", "beta-eager-fp32-b1"
PLAIN_GATE = ("--benchmark-compare", "--benchmark-compare-fail=median:5%")

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED


def plain_baseline(folder: Any, *names: str) -> None:
    folder.plain_tests(*names)
    assert folder.plain("--benchmark-save=base").ret == OK


@pytest.mark.plain_benchmark
def test_plain_benchmarks_see_that_code_is_slower(folder):
    """The yardstick: all silent passes below are of a gate that works when nothing comes in between."""
    plain_baseline(folder, "alpha")
    assert folder.plain(*PLAIN_GATE, ALPHA_MS=SLOW_MS).ret == FAILED


# Nothing to compare with


@pytest.mark.plain_benchmark
def test_plain_renamed(folder):
    plain_baseline(folder, "alpha")
    folder.plain_tests("renamed")
    assert folder.plain(*PLAIN_GATE, RENAMED_MS=SLOW_MS).ret == OK


def test_renamed(folder):
    folder.baseline("alpha")
    folder.suite("renamed")
    result = folder.gate("--benchmark-compare", RENAMED_MS=SLOW_MS)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"MISSING: *{ALPHA}*"])
    result.stdout.fnmatch_lines(["NEW: *renamed-eager-fp32-b1*--trtgate-update-baselines*"])


def test_renamed_is_missing_where_a_marker_selects_all_latency_tests(folder):
    """`-m trtgate_latency` leaves out tests of another kind, and no case."""
    folder.baseline("alpha")
    folder.suite(more=NEEDS_A_GPU)
    result = folder.gate("--benchmark-compare", "-m", "trtgate_latency")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"MISSING: *{ALPHA}*"])


@pytest.mark.parametrize("wanted", ["latency and gamma", "accuracy"])
def test_what_the_user_left_out_is_not_missing(folder, wanted):
    folder.baseline("alpha", "beta")
    folder.suite(more=NEEDS_A_GPU + NEEDS_A_GPU.replace("gamma", "delta"))
    result = folder.gate("--benchmark-compare", "-k", wanted)
    assert result.ret == OK
    result.stdout.fnmatch_lines(["*not run*2 cases*"])


NEEDS_A_GPU = """

@trtgate.model(frontends=("dynamo",), precisions=("fp32",))
def gamma(batch):
    raise AssertionError("skipped without a GPU, so never called")
"""


@pytest.mark.plain_benchmark
def test_plain_empty_baseline(folder):
    plain_baseline(folder, "alpha")
    with folder.edited(folder.plain_runs()[-1]) as document:
        document["benchmarks"] = []
    assert folder.plain(*PLAIN_GATE, ALPHA_MS=SLOW_MS).ret == OK


def test_empty_baseline(folder):
    folder.baseline()
    folder.suite("alpha")
    folder.refused(folder.gate("--benchmark-compare"), "latency.json", "holds no case")


@pytest.mark.plain_benchmark
def test_plain_baseline_of_another_python(folder):
    plain_baseline(folder, "alpha")
    machine = folder.plain_runs()[-1].parent
    machine.rename(machine.with_name("Linux-CPython-3.99-64bit"))
    result = folder.plain("--benchmark-compare", ALPHA_MS=SLOW_MS)
    assert result.ret == OK
    result.stderr.fnmatch_lines(["*Can't compare. No benchmark files in*"])


def test_baseline_of_another_python(folder):
    with folder.edited(folder.baseline("alpha")) as document:
        document["machine_info"] |= {"python_version": "3.99.0", "python_implementation_version": "3.99.0"}
        document["machine_info"]["cpu"]["python_version"] = "3.99.0.final.0 (64 bit)"
    folder.suite("alpha")
    result = folder.gate("--benchmark-compare", ALPHA_MS=SLOW_MS)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*{ALPHA} is slower*"])


PATHS = pytest.mark.parametrize("wanted", ["benchmarks", "benchmarks/test_plain.py"])


def plain_tests_below(folder: Any) -> None:
    folder.plain_tests("alpha")
    (folder.path / "benchmarks").mkdir()
    (folder.path / "benchmarks/test_plain.py").write_text((folder.path / "test_plain.py").read_text())


@PATHS
@pytest.mark.plain_benchmark
def test_plain_path_that_is_taken_for_the_name_of_a_run(folder, wanted):
    plain_tests_below(folder)
    assert folder.plain("--benchmark-save=base").ret == OK
    result = folder.plain("--benchmark-compare", wanted, ALPHA_MS=SLOW_MS)
    assert result.ret == OK
    result.stderr.fnmatch_lines([f"*Can't compare. No benchmark files in * match '{wanted}'*"])


@PATHS
def test_path_that_is_taken_for_the_name_of_a_run(folder, wanted):
    plain_tests_below(folder)
    folder.baseline("alpha")
    folder.suite("alpha")
    folder.refused(folder.gate("--benchmark-compare", wanted), wanted, f"pytest {wanted} --benchmark-compare")


# Another baseline than the one that was meant


@pytest.mark.plain_benchmark
def test_plain_autosave_of_a_part_becomes_the_newest_baseline(folder):
    plain_baseline(folder, "alpha", "beta")
    assert folder.plain("-k", "alpha", "--benchmark-autosave").ret == OK
    assert folder.plain("-k", "beta", *PLAIN_GATE, BETA_MS=SLOW_MS).ret == OK


def test_autosave_of_a_part_becomes_the_newest_baseline(folder):
    folder.baseline("alpha", "beta")
    folder.suite("alpha", "beta")
    assert folder.gate("-k", "alpha", "--benchmark-autosave").ret == OK
    result = folder.gate("-k", "beta", "--benchmark-compare", BETA_MS=SLOW_MS)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*{BETA} is slower*"])


@pytest.mark.plain_benchmark
def test_plain_autosave_stores_the_slow_run_before_the_check(folder):
    plain_baseline(folder, "alpha")
    runs = [folder.plain(*PLAIN_GATE, "--benchmark-autosave", ALPHA_MS=ms) for ms in (SLOW_MS, 0.9 * SLOW_MS)]
    assert [run.ret for run in runs] == [FAILED, OK]


def test_autosave_stores_the_slow_run_before_the_check(folder):
    stored = folder.baseline("alpha")
    before = stored.read_bytes()
    folder.suite("alpha")
    for _ in range(2):
        result = folder.gate("--benchmark-compare", "--benchmark-autosave", ALPHA_MS=SLOW_MS)
        assert result.ret == FAILED
        result.stdout.fnmatch_lines([f"*{ALPHA} is slower*"])
    assert stored.read_bytes() == before


@pytest.mark.plain_benchmark
def test_plain_truncated_newest_baseline(folder):
    folder.plain_tests("alpha")
    assert folder.plain("--benchmark-save=old", ALPHA_MS=FASTER_THAN_MS).ret == OK
    assert folder.plain("--benchmark-save=new").ret == OK
    truncate(folder.plain_runs()[-1])
    assert folder.plain(*PLAIN_GATE, ALPHA_MS=SLOW_MS).ret == OK


def test_truncated_newest_baseline(folder):
    stored = folder.baseline("alpha")
    truncate(stored)
    before = stored.read_bytes()
    folder.suite("alpha")
    folder.refused(folder.gate("--benchmark-compare"), "latency.json", "not valid JSON")
    folder.refused(folder.gate("--trtgate-update-baselines"), "latency.json", "not valid JSON")
    assert stored.read_bytes() == before


def truncate(file: Any) -> None:
    file.write_text(file.read_text()[:1000])


# No measurement


@pytest.mark.plain_benchmark
def test_plain_processes_of_xdist(folder):
    plain_baseline(folder, "alpha")
    assert folder.plain("-n", "2", *PLAIN_GATE, ALPHA_MS=SLOW_MS).ret == OK


def test_processes_of_xdist(folder):
    folder.baseline("alpha")
    folder.suite("alpha")
    folder.refused(folder.gate("-n", "2", "--benchmark-compare"), "--benchmark-compare", "-n")


OFF = pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip"])


@OFF
@pytest.mark.plain_benchmark
def test_plain_timing_switched_off(folder, option):
    plain_baseline(folder, "alpha")
    assert folder.plain(option, *PLAIN_GATE, ALPHA_MS=SLOW_MS).ret == OK


@OFF
def test_timing_switched_off(folder, option):
    folder.baseline("alpha")
    folder.suite("alpha")
    folder.refused(folder.gate(option, "--benchmark-compare"), "--benchmark-compare", option)


@pytest.mark.parametrize("options", [("-n", "2"), ("--benchmark-disable",), ("--benchmark-skip",)])
def test_a_required_verdict_that_is_not_timed(folder, options):
    folder.suite("alpha")
    folder.refused(folder.gate(*options, "--trtgate-require=verdict"), "--trtgate-require=verdict", options[0])
    assert folder.gate(*options, "--trtgate-require=verdict", "-m", "trtgate_accuracy").ret == OK


# No number


@pytest.mark.plain_benchmark
def test_plain_nan_in_the_baseline(folder):
    plain_baseline(folder, "alpha")
    with folder.edited(folder.plain_runs()[-1]) as document:
        document["benchmarks"][0]["stats"]["median"] = float("nan")
    assert folder.plain(*PLAIN_GATE, ALPHA_MS=SLOW_MS).ret == OK


def test_nan_in_the_baseline(folder):
    with folder.edited(folder.baseline("alpha")) as document:
        (session,) = document["benchmarks"][0]["extra_info"]["trtgate"]["sessions"]
        session["metrics"]["host"][0][0] = float("nan")
    folder.suite("alpha")
    folder.refused(folder.gate("--benchmark-compare"), "latency.json")


@pytest.mark.parametrize("number", ["0.0", "-1.0", "null", '"2.0"'])
def test_no_latency_in_the_baseline(folder, number):
    """Not NaN, and no latency either."""
    stored = folder.baseline("alpha")
    text, changed = re.subn(r'("host": \[\[)[\d.]+', rf"\g<1>{number}", stored.read_text())
    assert changed == 1
    stored.write_text(text)
    folder.suite("alpha")
    folder.refused(folder.gate("--benchmark-compare"), "latency.json")


def test_nan_from_a_clock_is_never_stored(folder):
    """One sample of many is NaN; the other case of the run is stored all the same."""
    folder.suite("alpha", "beta", more=CLOCK_GIVES_ALPHA_ONE_NAN)
    result = folder.gate("--trtgate-update-baselines")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*_ test_latency?{ALPHA}? _*", "*not a positive number*"])
    assert folder.saved_cases() == {BETA}
    (stored,) = folder.path.glob("baselines/*/latency.json")
    entries = json.loads(stored.read_text())["benchmarks"]
    assert [entry["extra_info"]["trtgate"]["case"] for entry in entries] == [BETA]


CLOCK_GIVES_ALPHA_ONE_NAN = """

from trtgate.timing import measuring_loop as loop

right = loop.measure


def wrong(*arguments, **named):
    found = right(*arguments, **named)
    if os.environ.get("LAST_MADE") == "alpha":
        found.captures[-1].blocks_us[-1] = float("nan")
    return found


def noting(factory, name):
    def make(batch):
        os.environ["LAST_MADE"] = name
        return factory(batch=batch)

    return make


loop.measure = wrong
alpha.factory, beta.factory = noting(alpha.factory, "alpha"), noting(beta.factory, "beta")
"""


# How a regression looks


@pytest.mark.plain_benchmark
def test_plain_regression_is_an_error_at_the_end_and_no_failed_test(folder):
    plain_baseline(folder, "alpha")
    result = folder.plain(*PLAIN_GATE, "--junitxml=plain.xml", ALPHA_MS=SLOW_MS)
    assert result.ret == FAILED
    result.stderr.fnmatch_lines(["Traceback*", "*PerformanceRegression*"])
    assert [suite.get("failures") for suite in junit_suites(folder, "plain.xml")] == ["0"]


def test_a_regression_is_a_failed_test(folder):
    folder.baseline("alpha")
    folder.suite("alpha")
    result = folder.gate("--benchmark-compare", "--junitxml=gate.xml", ALPHA_MS=SLOW_MS)
    assert result.ret == FAILED
    result.assert_outcomes(failed=1, passed=1)  # its accuracy is as it was
    assert "Traceback" not in folder.output_of(result)
    (suite,) = junit_suites(folder, "gate.xml")
    assert suite.get("failures") == "1"
    (said,) = [failure.get("message") or "" for failure in suite.iter("failure")]
    figures = r"host latency [\d.]+ ms → [\d.]+ ms, \+[\d,.]+%.* limit 10 % \(docs: regressed-host\)"
    what_to_do = f"if that is intended: --trtgate-update-baselines --trtgate-accept '{ALPHA}'"
    assert re.fullmatch(rf"(Failed: )?{ALPHA} is slower: {figures}\n{re.escape(what_to_do)}", said)


def junit_suites(folder: Any, name: str) -> Iterator[ElementTree.Element]:
    return ElementTree.parse(folder.path / name).getroot().iter("testsuite")


@pytest.mark.plain_benchmark
def test_plain_compare_fail_is_what_was_given_last(folder):
    plain_baseline(folder, "alpha")
    assert folder.plain(*PLAIN_GATE, "--benchmark-compare-fail=min:9999%", ALPHA_MS=SLOW_MS).ret == OK


def test_compare_fail_is_refused(folder):
    folder.baseline("alpha")
    folder.suite("alpha")
    folder.refused(folder.gate(*PLAIN_GATE), "--benchmark-compare-fail", "--trtgate-limit")
