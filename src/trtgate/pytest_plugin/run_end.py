"""The end of a run: what is stored, what is missing, what is shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from ..common import spent_time
from ..common.errors import PROBLEMS, TrtgateError, sentence_of
from ..common.escaping import terminal
from ..common.explanations import Explanation, explained
from ..common.notices import Notice, Severity
from ..common.text_columns import first_few, number_of
from ..gate import baselines
from ..report import load_lines, terminal_table
from ..report.case_row import row_of
from . import kept_runs, report_collector, run_filters
from .case_items import case_id_of, is_accuracy
from .gate_run import GateRun
from .run_document import spent_s
from .terminal_display import write_table


class Ending:
    """Stores and reports; changes no verdict."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._failed: set[str] = set()

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Store the run and the baseline, and turn a run red whose baseline has cases that nobody ran."""
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
            return
        try:
            changed = self._run.options.source.changed()
            if changed and self._run.benchmarks:
                said = f"{changed[0]} changed while the run went on, so the run has no one code that was measured"
                raise TrtgateError(explained(f"{said}: nothing was stored; run it again", Explanation.CODE_CHANGED))
            refused = self._store()
            if exitstatus != pytest.ExitCode.INTERRUPTED and self._run.judges:
                red = [self._run.stage is None and self._report_missing(session), self._report_unchecked(session)]
                if self._run.options.update:
                    red.append(self._report_unrecorded(session, refused))
                if any(red):
                    session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        except PROBLEMS as error:
            self._run.say(explained(sentence_of(error), Explanation.BASELINE_BROKEN), Severity.ERROR)
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Remember whose accuracy is asked: nothing skipped its test before."""
        if is_accuracy(item):
            self._run.accuracy.called.add(str(case_id_of(item)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the cases of failed tests: what became of them is said by these."""
        if report.failed:
            self._failed.update(str(value) for name, value in report.user_properties if name == report_collector.CASE)

    def _store(self) -> dict[str, bool]:
        """Save the run, and update the baseline where that is asked for; returns which cases are stored there."""
        run, stored = self._run, dict[str, bool]()
        if not run.benchmarks or run.stage is not None:
            return stored
        run.gate.adjust()
        for case_id, benchmark in run.benchmarks.items():
            judged = msgspec.to_builtins(run.results[case_id].judgements)
            if "trtgate" in benchmark.extra_info:  # a conftest may have taken it
                benchmark.extra_info["trtgate"]["judgements"] = judged
        path = run.save()
        run.say(f"run saved: {os.path.relpath(path, run.config.invocation_params.dir)}")
        run.notices += [said] if (said := kept_runs.keep(run, path)) else []
        if run.options.update:
            for change in run.gate.update_baseline(baselines.read(path)):
                stored[change.case_id] = not change.refused
                done = f"stored: {baselines.describe(change)}"
                if change.refused:
                    run.say(explained(f"not {done}", Explanation.NOT_STORED), Severity.ERROR)
                else:
                    run.say(done)
        return stored

    def _report_missing(self, session: pytest.Session) -> bool:
        """Return whether a case has no result that no filter left out, and say which."""
        run, base = self._run, self._run.options.base
        excused = run.failed | set(run.suite.cases if base else ())  # a base is run case by case
        missing = run.gate.missing(run.base_cases, excused)
        left_out = run_filters.left_out(session, run, missing, run.latency.deselected)
        where = f"base {base}" if base else "baseline"
        hidden = False
        if left_out:
            run.say(f"not run, as asked: {number_of(len(left_out), 'case')} of the {where.split()[0]}")
            judged = len(run.results)
            said = f"this run judged {judged} of {number_of(judged + len(missing), 'case')} of the {where}"
            hidden = self._hides(session, said, "the others")
        gone = [case_id for case_id in missing if case_id not in left_out]
        for case_id in gone:
            reason = run.skip_reasons.get(case_id, "not in the suite or not run")
            said = f"{case_id} is in the {where} and was not measured: {reason}"
            run.say(explained(said, Explanation.MISSING_CASE), Severity.MISSING)
        if gone and base is None:
            run.say("what is gone for good: trtgate baseline remove CASE")
        return hidden or bool(gone)

    def _report_unchecked(self, session: pytest.Session) -> bool:
        """Return whether a measured case's accuracy test did not run though no filter left it out, and say which."""
        run = self._run
        known = run.gate.baseline.cases if run.gate.baseline else {}
        tests = run.accuracy
        unchecked = [
            case_id
            for case_id in known
            if case_id in tests.made - tests.called - run.skip_reasons.keys() - self._failed
        ]
        left_out = run_filters.left_out(session, run, unchecked, tests.deselected)
        hidden = False
        if run.stage is not None:
            run.stage.unchecked = left_out  # a merge tells of all shards
        elif left_out:
            cases = number_of(len(left_out), "case")
            run.say(f"accuracy not checked, as asked: {cases} of the baseline")
            hidden = self._hides(session, f"the accuracy of {cases} of the baseline was not checked", "it")
        gone = [case_id for case_id in unchecked if case_id not in left_out]
        for case_id in gone:
            why = "something outside trtgate skips or drops its test"
            run.say(_outside(f"{case_id} is in the baseline and its accuracy was not checked: {why}"), Severity.MISSING)
        return hidden or bool(gone)

    def _report_unrecorded(self, session: pytest.Session, stored: Mapping[str, bool]) -> bool:
        """Return whether a recording left a case out that is neither noisy nor left out as asked, and say which.

        What failed, is missing, was refused or could not be compared is told already.
        """
        run, outside = self._run, "not stored: something outside trtgate"
        known = run.gate.baseline.cases if run.gate.baseline else {}
        excused = run.skip_reasons.keys() | run.failed | self._failed
        left = [
            name for name in sorted(run.latency.made - excused) if not stored.get(name) and not run.quarantine_of(name)
        ]
        not_run = [case_id for case_id in left if case_id not in run.results]
        asked = run_filters.left_out(session, run, not_run, run.latency.deselected)
        red = False
        for case_id in left:
            result = run.results.get(case_id)
            noisy = result is not None and bool(result.judgements) and not result.stored
            if case_id in asked or noisy:
                continue
            red = True
            if result is None and case_id not in known:
                run.say(_outside(f"{case_id}: {outside} skips or drops its test"), Severity.ERROR)
            elif result is not None and result.stored and case_id not in stored:
                run.say(_outside(f"{case_id}: {outside} took its samples"), Severity.ERROR)
        return red

    def _hides(self, session: pytest.Session, said: str, what: str) -> bool:
        """Return whether a filter that nobody typed left out what a verdict is required of, and say so."""
        if "verdict" not in self._run.options.require or run_filters.on_command_line(session.config):
            return False
        if session.shouldstop or session.shouldfail:  # as -x does: the run is red already
            return False
        where = "a filter that is not on the command line (addopts, PYTEST_ADDOPTS, a conftest)"
        said = f"{said}, and {where} leaves {what} out (--trtgate-require=verdict)"
        self._run.say(explained(said, Explanation.FILTER_HIDES), Severity.ERROR)
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table and the lines: with -q only what asks for something, with -v what every verdict rests on."""
        verbose = self._run.config.option.verbose
        notices = self._notices(verbose)
        measured = self._run.results
        if not measured and not notices:
            return
        terminalreporter.section("trtgate")
        if measured:
            self._write_table(terminalreporter, verbose)
        for notice in notices:
            terminalreporter.write_line(str(notice), red=notice.failed, bold=notice.loud)

    def _write_table(self, terminalreporter: Any, verbose: int) -> None:
        results = list(self._run.results.values())
        rows = [row_of(result) for result in results]
        shown = [row for row in rows if verbose >= 0 or row.verdict in terminal_table.WORTH_A_LOOK]
        if verbose >= 0:
            terminalreporter.write_line(self._run.times + terminal_table.describe(self._run.accelerator))
        if shown:
            write_table(terminalreporter, terminal_table.table(shown))
        terminalreporter.write_line(terminal_table.counts(rows), bold=True)
        if verbose > 0:
            for result in results:
                for line in (
                    *[result.sentence] * bool(result.sentence),
                    *load_lines.lines(result.case_id, result.measurement),
                ):
                    terminalreporter.write_line(terminal(line))

    def _notices(self, verbose: int) -> list[Notice]:
        """Return what else there is to say."""
        run = self._run
        notices = [Notice(line, Severity.NEW) for line in self._about_new()] + run.notices
        if verbose <= 0:
            notices += terminal_table.few_undecided(run.undecided, "-rs")
        notices += run.resuming.said() if run.resuming is not None else []
        notices += run.gate.notices if run.results else run.gate.remarks
        if run.environment:
            notices.append(Notice(f"since the baseline was last recorded: {', '.join(run.environment)}"))
        if verbose > 0 and (went := spent_time.sentence(spent_s(run, run.spent.total_s))):
            notices.append(Notice(f"time: {went}"))
        return [notice for notice in notices if verbose >= 0 or notice.loud or notice.severity is Severity.NOTICE]

    def _about_new(self) -> list[str]:
        base, new = self._run.options.base, self._run.new
        if base is not None:
            lacking = f"the base {base} does not have {first_few(new, 2)}"
            return [explained(lacking, Explanation.NEW_CASE)] * bool(new)
        return self._run.gate.about_all_new(new) if new else []


def _outside(text: str) -> str:
    return explained(text, Explanation.OUTSIDE_INTERFERENCE)
