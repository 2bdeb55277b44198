"""JUnit XML: the properties of a case's test, and a whole file where no pytest writes one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

from ..gate.case_result import CaseResult
from .case_row import row_of
from .run_report import FAILED, SKIPPED, RunReport

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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


def render(reports: Sequence[tuple[RunReport, Mapping[str, CaseResult]]]) -> bytes:
    """Return a JUnit XML file: a suite for each run, with a test for each case, lost test and failing notice."""
    root = ElementTree.Element("testsuites", name="trtgate")
    for report, results in reports:
        key = report.accelerator.key
        suite = ElementTree.SubElement(root, "testsuite", name=key, timestamp=report.created, time=f"{report.seconds}")
        for case in report.cases:
            test = _test(suite, key, f"test_latency[{case.case_id}]", case.outcome, case.sentence)
            if case.case_id in results:
                _with_properties(test, properties(results[case.case_id]))
        for kind, of_kind in (("coverage", report.coverage), ("profile", report.profiles)):
            for one in of_kind:
                _test(suite, key, f"test_{kind}[{one.case_id}]", one.outcome, one.sentence)
        for failure in report.failures:
            _test(suite, key, failure.test, FAILED, failure.sentence)
        for notice in report.failing_notices:
            _test(suite, key, f"run[{notice.text.partition(':')[0]}]", FAILED, notice.text)
        _count(suite)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _test(suite: ElementTree.Element, key: str, name: str, outcome: str, said: str) -> ElementTree.Element:
    test = ElementTree.SubElement(suite, "testcase", classname=f"trtgate.{key}", name=_text(name), time="0")
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
