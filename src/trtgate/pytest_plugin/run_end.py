"""The end of a run: what is stored, what is missing, what is shown."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from ..common.errors import PROBLEMS, TrtgateError, sentence_of
from ..common.escaping import terminal
from ..common.notices import Notice, Severity
from ..common.text_columns import first_few
from ..gate import baselines
from ..report import terminal_table
from ..report.case_row import row_of
from . import run_filters
from .gate_run import GateRun

UNDECIDED_SHOWN = 3


class Ending:
    """Stores and reports; changes no verdict."""

    def __init__(self, run: GateRun) -> None:
        self._run = run

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Store the run and the baseline, and turn a run red whose baseline has cases that nobody ran."""
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
            return
        try:
            changed = self._run.options.source.changed()
            if changed and self._run.benchmarks:
                raise TrtgateError(
                    f"{changed[0]} changed while the run went on: nothing can be said of code that moves, and nothing "
                    "was stored"
                )
            self._store()
            if exitstatus != pytest.ExitCode.INTERRUPTED and self._run.judges:
                self._report_missing(session)
        except PROBLEMS as error:
            self._run.say(sentence_of(error), Severity.ERROR)
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _store(self) -> None:
        if not self._run.benchmarks:
            return
        self._run.gate.adjust()
        for case_id, benchmark in self._run.benchmarks.items():
            judged = msgspec.to_builtins(self._run.results[case_id].judgements)
            if "trtgate" in benchmark.extra_info:  # a conftest may have taken it
                benchmark.extra_info["trtgate"]["judgements"] = judged
        path = self._run.save()
        self._run.say(f"run saved: {os.path.relpath(path, self._run.config.invocation_params.dir)}")
        if self._run.options.update:
            for change in self._run.gate.update_baseline(baselines.read(path)):
                self._run.say(f"stored: {baselines.describe(change)}")

    def _report_missing(self, session: pytest.Session) -> None:
        """Turn a run red that has no result of a case that no filter left out."""
        run, base = self._run, self._run.options.base
        excused = run.failed | set(run.suite.cases if base else ())  # a base is run case by case
        missing = run.gate.missing(run.base_cases, excused)
        left_out = run_filters.left_out(session, run, missing)
        where = f"base {base}" if base else "baseline"
        if left_out:
            run.say(f"not run, as asked: {len(left_out)} cases of the {where.split()[0]}")
            hidden = "verdict" in run.options.require and not run_filters.on_command_line(session.config)
            if hidden:
                judged = len(run.results)
                run.say(
                    f"{judged} of {judged + len(missing)} cases of the {where} were judged, and a filter that is not "
                    "on the command line (addopts, PYTEST_ADDOPTS, a conftest) leaves the others out "
                    "(--trtgate-require=verdict)",
                    Severity.ERROR,
                )
                session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        gone = [case_id for case_id in missing if case_id not in left_out]
        for case_id in gone:
            reason = run.skip_reasons.get(case_id, "not in the suite or not run")
            run.say(f"{case_id} is in the {where} and was not measured: {reason}", Severity.MISSING)
        if gone:
            if base is None:
                run.say("what is gone for good: trtgate baseline remove CASE")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

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
            writer = terminalreporter._tw if hasattr(terminalreporter, "_tw") else None
            width = getattr(writer, "fullwidth", 100)
            terminalreporter.write(terminal_table.table(shown, width=width, color=terminalreporter.hasmarkup))
        terminalreporter.write_line(terminal_table.counts(rows), bold=True)
        if verbose > 0:
            for result in results:
                if result.sentence:
                    terminalreporter.write_line(terminal(result.sentence))

    def _notices(self, verbose: int) -> list[Notice]:
        """Return what else there is to say."""
        run, undecided = self._run, self._run.undecided
        notices = [Notice(self._about_new(), Severity.NEW)] * bool(run.new) + run.notices
        if verbose <= 0:
            notices += undecided[:UNDECIDED_SHOWN]
            if len(undecided) > UNDECIDED_SHOWN:
                notices.append(Notice(f"… and {len(undecided) - UNDECIDED_SHOWN} more without a verdict: see -rs"))
        if run.results:
            notices += run.gate.notices
        if run.environment:
            notices.append(Notice(f"since the baseline was last recorded: {', '.join(run.environment)}"))
        return [notice for notice in notices if verbose >= 0 or notice.loud]

    def _about_new(self) -> str:
        base, new = self._run.options.base, self._run.new
        if base is not None:
            return f"the base {base} does not have {first_few(new, 2)}"
        return self._run.gate.about_new(new)
