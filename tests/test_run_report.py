"""A run as a document, and what is made of it: JSON, Markdown, GitHub's annotations, JUnit's properties."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from trtgate.cli import app
from trtgate.commands import report_files
from trtgate.common import escaping
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.common.notices import Notice, Severity
from trtgate.gate.history import Commit
from trtgate.report import github_annotations, markdown, run_report
from trtgate.report.run_report import CaseReport, CoverageReport, Failure, RunReport
from trtgate.verdict import Judgement, Verdict

DOCS = Path(__file__).parent.parent / "docs"
HOSTILE = (
    "<script>alert(1)</script>|`code` [link](http://evil.example) ![x](y) @someone #1 **b** ::error::x\n\r"
    "\x1b[31m\u202e"
)


def judgement(change: float, verdict: Verdict = Verdict.UNCHANGED) -> Judgement:
    return Judgement(
        metric="device", verdict=verdict, now=100 * (1 + change), baseline=100.0, change=change, low=change - 0.001,
        high=change + 0.001, limit=0.01, threshold=0.01, detectable=0.004, evidence="3 stored sessions",
    )  # fmt: skip


def case(name: str, said: str = "unchanged", change: float = 0.0, **more: Any) -> CaseReport:
    outcome = "failed" if said in ("regressed", "failed") else "passed"
    defaults: dict[str, Any] = {
        "sentence": f"{name} is {said}", "primary": "device", "medians_us": {"device": 100 * (1 + change)},
        "judgements": [judgement(change)],
    }  # fmt: skip
    return CaseReport(case_id=name, **({"outcome": outcome, "said": said} | defaults | more))


def made(*cases: CaseReport, **more: Any) -> RunReport:
    failed = any(one.outcome == "failed" for one in cases) or bool(more.get("failures"))
    defaults: dict[str, Any] = {
        "outcome": "failed" if failed else "passed", "exit_status": int(failed), "created": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0, "accelerator": Accelerator(kind="gpu", name="NVIDIA H100 80GB HBM3", uuid="GPU-1"),
        "against": "baseline b/latency.json", "command": ["pytest", "benchmarks"],
        "commit": Commit(id="0123456789abcdef", branch="main"),
    }  # fmt: skip
    return RunReport(cases=list(cases), **(defaults | more))


# The document


def test_the_published_schema_is_that_of_the_document() -> None:
    """Written by `python -m trtgate.report.run_report > docs/report.schema.json`."""
    assert json.loads((DOCS / "report.schema.json").read_text()) == run_report.schema()


def test_the_worst_stand_first_and_the_headline_counts() -> None:
    report = made(case("a"), case("b", "regressed", 0.02), case("c", "regressed", 0.05), case("d", "new"))
    assert [one.case_id for one in report.cases] == ["c", "b", "d", "a"]
    assert report.headline == "2 regressed, 1 new, 1 unchanged"


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = made(
        case(HOSTILE, "regressed", 0.02, captures_us=[[1.0, 2.0]]), failures=[Failure(test="t", sentence="s")]
    )
    run_report.write(tmp_path / "run.json", report)
    assert run_report.read(tmp_path / "run.json") == report


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is broken"),
        ("[]", "is broken"),
        ('{"schema": 99}', "has schema 99"),
        ('{"schema": 2}', "is broken"),
        (
            msgspec.json.encode(made(case("a"))).decode().replace('"said":"unchanged"', '"said":"fine"'),
            "says 'fine' of case 'a'",
        ),
        (msgspec.json.encode(made(case("a"))).decode()[:-40], "is broken"),
    ],
)
def test_what_is_no_report_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(TrtgateError, match=re.escape(said)) as raised:
        run_report.read(tmp_path / "run.json")
    assert "\n" not in str(raised.value)
    with pytest.raises(TrtgateError, match="can't be read"):
        run_report.read(tmp_path / "absent.json")


# Markdown


def test_markdown_gives_the_verdict_first_and_folds_what_is_quiet() -> None:
    report = made(
        case("quiet"), case("slow", "regressed", 0.02, where="where: layer4", advice="if that is intended: accept"),
        coverage=[
            CoverageReport(
                case_id="c1", outcome="failed", said="regressed", in_tensorrt=3, total=4, engines=2,
                sentence="c1 lost coverage since rtx-2.14.0: aten.x", release="rtx-2.14.0",
            ),
        ],
    )  # fmt: skip
    said = markdown.render(report)
    lines = said.splitlines()
    assert lines[0] == "## ❌ trtgate failed: 1 regressed, 1 unchanged, 1 lost coverage"
    assert "- ❌ slow is regressed" in lines
    assert lines[lines.index("- ❌ slow is regressed") + 1] == "  - where&#58; layer4"
    assert "| ❌ | slow | 102 µs | 100 µs | +2.00% ± 0.10% | 1 % | 0.4 % | regressed |" in lines
    assert "| ❌ | c1 | 3 of 4 | 2 |  lost coverage since rtx-2.14.0&#58; aten&#46;x |" in lines
    folded = said[said.index("<details>") :]
    assert "| ✅ | quiet |" in folded
    assert "slow" not in folded


def test_a_quarantined_case_is_explained_and_passes() -> None:
    report = made(case("q", "regressed", 0.02, outcome="passed", quarantine="quarantined until 2027-01-01: flaky"))
    said = markdown.render(report)
    assert said.startswith("## ✅ trtgate passed")
    assert "regressed, quarantined |" in said


@pytest.mark.parametrize("length", [10, 4000])
@pytest.mark.parametrize("count", [1, 3000])
def test_markdown_is_never_too_long_and_says_what_it_leaves_out(length: int, count: int) -> None:
    for said in ("regressed", "unchanged"):
        report = made(
            *(case(f"{number}{'x' * length}", said, 0.02) for number in range(count)), notices=[Notice("y" * 5000)] * 50
        )
        text = markdown.render(report)
        assert len(text) < 65_000
        assert ("the rest is in the JSON report" in text) == (count == 3000)
        assert text.count("<details>") == text.count("</details>")


@given(st.text())
def test_no_text_is_markup(text: str) -> None:
    shown = escaping.markdown(text)
    assert not re.search(r"[<>|`*_\[\]!@:#\\~\"\n\r]", re.sub(r"&#\d+;", "", shown))
    decoded = re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), shown)
    assert decoded == escaping.printable(text)
    assert decoded.isprintable()


def test_hostile_names_are_text_everywhere() -> None:
    report = made(
        case(HOSTILE, "regressed", 0.02, where=HOSTILE, advice=HOSTILE),
        failures=[Failure(test=HOSTILE, sentence=HOSTILE)],
        notices=[Notice(HOSTILE, Severity.MISSING), Notice(HOSTILE)],
        commit=Commit(id="0" * 40, branch=HOSTILE),
    )
    said = markdown.render(report)
    for harmful in ("<script", "](http", "@someone", "`code`", "**b**", "\x1b", "\u202e"):
        assert harmful not in said
    commands = github_annotations.lines(report)
    assert len(commands) == 3
    for command in commands:
        assert command.startswith("::error title=")
        assert len(command.splitlines()) == 1
        title = command.removeprefix("::error title=").partition("::")[0]
        assert ":" not in title
        assert "," not in title


def test_github_gets_ten_annotations_and_the_number_of_the_others() -> None:
    commands = github_annotations.lines(made(*(case(f"c{number}", "regressed", 0.02) for number in range(12))))
    assert len(commands) == 10
    assert commands[-1] == "::error title=trtgate::and 3 more failures"
    assert github_annotations.lines(made(case("a"))) == []


def test_a_report_is_made_elsewhere(tmp_path: Path) -> None:
    report = made(case("slow", "regressed", 0.02))
    run_report.write(tmp_path / "run.json", report)
    read = run_report.read(tmp_path / "run.json")
    assert report_files.make(read, to_markdown=None) == [markdown.render(report).rstrip()]
    report_files.make(read, to_markdown=tmp_path / "summary.md")
    assert (tmp_path / "summary.md").read_text() == markdown.render(report)
    with pytest.raises(TrtgateError, match="can't be written"):
        report_files.make(read, to_markdown=tmp_path / "run.json" / "summary.md")


def test_a_report_is_read_once_whatever_is_made_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_report.write(tmp_path / "run.json", made(case("slow", "regressed", 0.02)))
    read, places = run_report.read, []
    monkeypatch.setattr(run_report, "read", lambda place: (places.append(place), read(place))[1])
    arguments = ["report", str(tmp_path / "run.json"), "--json", "--markdown", str(tmp_path / "run.md")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == (tmp_path / "run.json").read_text()
    assert "slow" in (tmp_path / "run.md").read_text()
    assert places == [tmp_path / "run.json"]


# A run


def test_a_run_becomes_a_document_a_summary_annotations_and_properties(folder: Any, monkeypatch: Any) -> None:
    folder.baseline("alpha", "beta")
    folder.suite("alpha", "beta")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder.path / "summary.md"))
    (folder.path / "summary.md").write_text("before\n")
    slow = folder.gate(
        "--benchmark-compare", "--trtgate-launches=1", "--trtgate-report=run.json", "--junit-xml=junit.xml", ALPHA_MS=40
    )
    assert slow.ret == 1
    slow.stdout.fnmatch_lines(
        ["*if that is intended: --trtgate-update-baselines --trtgate-accept 'alpha-eager-fp32-b1'*", "report: run.json"]
    )
    report = run_report.read(folder.path / "run.json")
    assert (report.outcome, report.exit_status) == ("failed", 1)
    assert report.against == "baseline baselines/" + next((folder.path / "baselines").iterdir()).name + "/latency.json"
    first, second = report.cases
    assert (first.case_id, first.outcome, first.said) == ("alpha-eager-fp32-b1", "failed", "regressed")
    assert first.sentence.startswith("alpha-eager-fp32-b1 is slower: host latency")
    assert second.said in ("unchanged", "improved", "unconfirmed", "underpowered")  # whatever this machine's noise is
    assert (second.outcome == "skipped", second.primary) == (second.said == "underpowered", "host")
    assert first.medians_us["host"] > 30_000 > second.medians_us["host"]
    assert [len(captures) for captures in (first.captures_us, second.captures_us)] == [1, 1]
    assert first.base_captures_us
    assert first.figures["build_s"] > 0
    summary = (folder.path / "summary.md").read_text()
    assert summary.startswith("before\n## ❌ trtgate failed: 1 regressed, 1 ")
    assert slow.stdout.str().count("::error title=alpha-eager-fp32-b1%3A regressed::") == 1
    (saved,) = sorted((folder.path / ".trtgate" / "runs").glob("*.json"))[-1:]
    stored = json.loads(saved.read_text())
    for benchmark in stored["benchmarks"]:  # what github-action-benchmark and Bencher read of pytest-benchmark's JSON
        assert benchmark["fullname"].endswith(f"::test_latency[{benchmark['group']}]")
        stats = benchmark["stats"]
        assert all(stats[name] > 0 for name in ("mean", "median", "min", "max", "ops", "rounds"))
        assert stats["stddev"] >= 0
    assert {"id", "time", "branch", "dirty"} <= stored["commit_info"].keys()
    tests = ET.parse(folder.path / "junit.xml").getroot().iter("testcase")
    properties = {
        test.get("name"): {one.get("name"): one.get("value") for one in test.iter("property")} for test in tests
    }
    found = properties["test_latency[alpha-eager-fp32-b1]"]
    assert found["trtgate_verdict"] == "regressed"
    assert float(str(found["trtgate_host_us"])) > 30_000 > float(str(found["trtgate_baseline_us"]))
    assert "%" in str(found["trtgate_change"])


def test_quiet_shows_what_asks_for_something_and_verbose_what_verdicts_rest_on(folder: Any) -> None:
    folder.baseline("alpha", "beta")
    folder.suite("alpha", "beta")
    options = ("--benchmark-compare", "--trtgate-launches=1")
    quiet = folder.gate(*options, "-qq", ALPHA_MS=40).stdout
    quiet.fnmatch_lines(["alpha-eager-fp32-b1 *regressed", "2 cases: 1 regressed, 1 *"])
    quiet.no_fnmatch_line("run saved*")
    quiet.no_fnmatch_line("beta-eager* unchanged")
    verbose = folder.gate(*options, "-vv", ALPHA_MS=40).stdout
    verbose.fnmatch_lines(
        ["alpha-eager-fp32-b1 *regressed", "2 cases: 1 regressed, 1 *", "alpha-eager-fp32-b1 is slower*", "beta-eager*"]
    )


def test_a_case_that_fails_otherwise_and_one_that_is_skipped_are_in_it(folder: Any) -> None:
    folder.suite(alpha="raise ValueError('no such weights')")
    (folder.path / "test_mine.py").write_text("def test_mine():\n    assert 1 == 2\n")
    done = folder.gate("--trtgate-report=run.json", "test_mine.py", ".")
    assert done.ret == 1
    report = run_report.read(folder.path / "run.json")
    (alpha,) = report.cases
    assert (alpha.outcome, alpha.said) == ("failed", "failed")
    assert "no such weights" in alpha.sentence
    assert [failure.test for failure in report.failures][-1].endswith("test_mine")


def test_a_run_of_other_tests_is_not_told_to_github(folder: Any, monkeypatch: Any) -> None:
    folder.suite("alpha")
    (folder.path / "test_mine.py").write_text("def test_mine():\n    assert 1 == 2\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder.path / "summary.md"))
    done = folder.pytest("test_mine.py")
    assert done.ret == 1
    assert not (folder.path / "summary.md").exists()
    assert "::error" not in done.stdout.str()


def test_a_report_that_cannot_be_written_fails_the_run(folder: Any) -> None:
    folder.suite("alpha")
    (folder.path / "file").write_text("")
    done = folder.gate("--trtgate-report=file/run.json")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["ERROR: *file/run.json could not be written*"])
