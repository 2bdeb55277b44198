"""JUnit XML: the properties of a case's test, and a whole file where no pytest writes one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

import msgspec

from ..gate.case_result import CaseResult
from .case_row import row_of
from .run_report import FAILED, SKIPPED, RunReport

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class TestOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One of pytest's tests: what became of it, and why."""

    __test__ = False  # it is no test itself
    nodeid: str
    outcome: str
    said: str = ""
    seconds: float = 0.0
    case: str = ""
    """Of which case it is the latency test; empty for any other."""


class JudgedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator's run: its document, what came of its cases, and which tests there were."""

    report: RunReport
    results: Mapping[str, CaseResult]
    tests: Sequence[TestOutcome] = ()


def properties(result: CaseResult) -> list[tuple[str, object]]:
    """Return verdict and figures of a case as properties of its test; names carry units."""
    row = row_of(result)
    found: list[tuple[str, object]] = [("trtgate_verdict", str(row.verdict or "measured"))]
    if row.latency_us is not None:
        found.append((f"trtgate_{result.measurement.primary}_us", f"{row.latency_us:.6g}"))
        found += [(f"trtgate_{metric}_us", f"{us:.6g}") for metric, us in row.others.items()]
    if row.judgement is not None:
        judged = row.judgement
        found += [
            ("trtgate_baseline_us", f"{judged.baseline:.6g}"),
            ("trtgate_change", f"{judged.change:+.4%} ({judged.low:+.4%} to {judged.high:+.4%})"),
            ("trtgate_limit", f"{judged.limit:.4%}"),
            ("trtgate_detects", f"{judged.detectable:.4%}"),
        ]
    return found


def render(runs: Sequence[JudgedRun]) -> bytes:
    """Return a JUnit XML file: a suite for each run, with pytest's tests, latency tests by the verdicts of their cases.

    What no test says follows: cases whose test is not known, tests that were not collected, and failing notices.
    """
    root = ElementTree.Element("testsuites", name="trtgate")
    for run in runs:
        report, key = run.report, run.report.accelerator.key
        suite = ElementTree.SubElement(root, "testsuite", name=key, timestamp=report.created, time=f"{report.seconds}")
        _add_tests(suite, run)
        for failure in report.failures:
            if failure.test not in {one.nodeid for one in run.tests}:
                _test(suite, _ours(key, failure.test), FAILED, failure.sentence)
        for notice in report.failing_notices:
            _test(suite, _ours(key, f"run[{notice.text.partition(':')[0]}]"), FAILED, notice.text)
        _count(suite)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _add_tests(suite: ElementTree.Element, run: JudgedRun) -> None:
    key, cases = run.report.accelerator.key, {case.case_id: case for case in run.report.cases}
    addresses = {one.case: address(one.nodeid) for one in run.tests if one.case in cases}
    for one in run.tests:
        if one.case not in cases:
            _test(suite, address(one.nodeid), one.outcome, one.said, one.seconds)
    for case_id, case in cases.items():
        where = addresses.get(case_id, _ours(key, f"test_latency[{case_id}]"))
        test = _test(suite, where, case.outcome, case.sentence)
        if case_id in run.results:
            _with_properties(test, properties(run.results[case_id]))


def address(nodeid: str) -> tuple[str, str]:
    """Return the class name and the name that pytest's own JUnit XML gives a test (`mangle_test_address`)."""
    path, bracket, parameters = nodeid.partition("[")
    file, *names = path.split("::")
    names = [file.replace("/", ".").removesuffix(".py"), *names]
    return ".".join(names[:-1]), f"{names[-1]}{bracket}{parameters}"


def _ours(key: str, name: str) -> tuple[str, str]:
    return f"trtgate.{key}", name


def _test(
    suite: ElementTree.Element, where: tuple[str, str], outcome: str, said: str, seconds: float = 0.0
) -> ElementTree.Element:
    class_name, name = map(_text, where)
    test = ElementTree.SubElement(suite, "testcase", classname=class_name, name=name, time=f"{seconds:.3f}")
    if outcome in (FAILED, SKIPPED):
        tag = {FAILED: "failure", SKIPPED: "skipped"}[outcome]
        ElementTree.SubElement(test, tag, message=_text(said)).text = _text(said)
    return test


def _with_properties(test: ElementTree.Element, found: Iterable[tuple[str, object]]) -> None:
    holder = ElementTree.Element("properties")
    test.insert(0, holder)
    for name, value in found:
        ElementTree.SubElement(holder, "property", name=_text(name), value=_text(str(value)))


def _count(suite: ElementTree.Element) -> None:
    counts = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}
    for name, path in counts.items():
        suite.set(name, str(len(suite.findall(path))))
    suite.set("errors", "0")


def _text(text: str) -> str:
    """Return a text without characters that XML can't hold."""
    return NOT_XML.sub("\ufffd", text)
