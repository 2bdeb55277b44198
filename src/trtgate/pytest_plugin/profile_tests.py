"""Profiles in a pytest run: what a profile test calls, what explains a regressed case, what is shown at the end."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ..common.errors import TrtgateError, one_line
from ..common.explanations import Explanation, explained
from ..common.notices import Notice, Severity
from ..common.text_columns import TextTable, number_of
from ..gate.outcome import Kind, outcome
from .terminal_display import write_table

if TYPE_CHECKING:
    from ..launches.messages import ProfileReply
    from ..profiles.profile_gate import ProfileResult, Where
    from .built_case import BuiltCase
    from .gate_run import GateRun

PROPERTY = "trtgate_profile"
"""The property of a test's report that carries its result to the process that reports."""


class Profiles:
    """The profiles of a run, each recorded once, by a worker, when it is first asked for."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._recorded: dict[str, ProfileReply] = {}

    def of(self, built: BuiltCase) -> ProfileReply:
        """Return the profile of a built case. Raises TrtgateError when it can't be built or profiled."""
        case_id = built.case.id
        if case_id not in self._recorded:
            built.check()
            with self._run.progress(case_id) as step:
                session = self._run.devices.workers_of(self._run, case_id).session
                self._recorded[case_id] = session.profile(case_id, built.artifact, step)
        return self._recorded[case_id]

    def where(self, built: BuiltCase) -> Where:
        """Say in which layers a regressed case lost its time; or why that can't be said; empty on a CPU."""
        from ..profiles.profile_gate import Where

        if self._run.accelerator.kind != "gpu" or not built.case.settings.partitions:
            return Where()
        try:
            beside_base = self._run.options.base is not None
            return self._beside_base(built) if beside_base else self._against_stored(built)
        except TrtgateError as error:
            return Where(sentence=f"where: {error}")
        except Exception as error:  # whatever it is, the regression is what must be told
            return Where(sentence=f"where: {one_line(error)}")

    def _against_stored(self, built: BuiltCase) -> Where:
        from ..profiles import profile_files, profile_gate

        stored = profile_files.read_baseline(self._run.options.baselines, self._run.accelerator.key, built.case.id)
        if stored is None:
            raise TrtgateError(f"no profile is stored to compare with: {profile_gate.RECORD_COMMAND}")
        return profile_gate.where(stored, self.of(built).profile)

    def _beside_base(self, built: BuiltCase) -> Where:
        """Profile both sides, keep the profiles for `trtgate profile diff`, and say what differs."""
        from ..launches.pair import BASE, CANDIDATE, Artifacts
        from ..profiles import profile_files, profile_gate

        case_id, ahead = built.case.id, built.ahead_beside_base()
        stored = {name: one.artifact for name, one in ahead.items()}
        artifacts = Artifacts(base=stored.get(BASE), candidate=stored.get(CANDIDATE))
        with self._run.progress(case_id) as step:
            base, candidate = self._run.workers_beside_base().profiles_beside_base(case_id, artifacts, step)
        folder = profile_files.folder_of(self._run.folder / profile_files.FOLDER, case_id)
        for name, profile in (("base", base), ("candidate", candidate)):
            profile_files.write(folder / f"{name}.json", profile)
        return profile_gate.where(base, candidate)


PROFILES = pytest.StashKey[Profiles]()


def profiles_of(run: GateRun) -> Profiles:
    """Return the profiles of a run."""
    return run.config.stash.setdefault(PROFILES, Profiles(run))


class ProfileGate:
    """Profiles a built case, writes its files, checks it, and compares its layers with those that are stored."""

    def __init__(self, run: GateRun, item: pytest.Item) -> None:
        self._run = run
        self._item = item

    def __call__(self, built: BuiltCase) -> None:
        """Fail or pass the calling test. Raises TrtgateError when the case can't be profiled, or is unbelievable."""
        from ..profiles import profile_files, profile_gate

        options, key, case_id = self._run.options, self._run.accelerator.key, built.case.id
        recorded = profiles_of(self._run).of(built)
        folder = profile_files.folder_of(self._run.folder / profile_files.FOLDER, case_id)
        profile_files.write_folder(folder, recorded.profile, recorded.information)
        problem = profile_gate.complaint(recorded.profile)
        if problem:
            raise TrtgateError(problem)
        profile_files.read(folder / profile_files.PROFILE)  # what was written is what the schema says
        shown = os.path.relpath(folder, self._run.config.invocation_params.dir)
        result = msgspec.structs.replace(profile_gate.judge(recorded.profile, options.baselines, key), folder=shown)
        changed = result.verdict is profile_gate.LayersVerdict.CHANGED
        accepted = any(fnmatch.fnmatch(case_id, pattern) for pattern in options.accepted)
        if options.update and (accepted or not (changed and options.strict_layers)):
            profile_files.store_baseline(options.baselines, key, recorded.profile)
            result = msgspec.structs.replace(result, stored=True)
        self._item.user_properties.append((PROPERTY, msgspec.json.encode(result).decode()))
        intended = f"If that is intended: --trtgate-update-baselines --trtgate-accept '{case_id}'"
        said = outcome(
            result.verdict, case_id, result.sentence, require=options.require, accepted=accepted,
            updating=result.stored, strict=options.strict_layers,
            advice=f" (--trtgate-strict-layers). {intended}" if changed else f": {profile_gate.RECORD_COMMAND}",
        )  # fmt: skip
        if said.kind is Kind.FAILED:
            raise TrtgateError(said.text)  # quarantined or known to fail: the hook asks for what that means


class ProfileEnding:
    """Collects the results of all tests, wherever they ran, and shows them."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._results: list[ProfileResult] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a profile test found."""
        found = [value for name, value in report.user_properties if name == PROPERTY and report.when == "call"]
        if found:
            from ..profiles.profile_gate import ProfileResult

            self._results += [msgspec.json.decode(str(value), type=ProfileResult) for value in found]

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table and the lines."""
        results = self._results
        if not results:
            return
        from ..profiles import profile_gate

        terminalreporter.section("trtgate profiles")
        write_table(terminalreporter, TextTable(profile_gate.rows(results)))
        for result in results:
            if result.verdict is profile_gate.LayersVerdict.CHANGED:
                terminalreporter.write_line(str(Notice(result.sentence, Severity.NOTICE)), bold=True)
        for case_id in self._gone():
            said = f"a profile of {case_id} is stored, and the suite has no such case; what is gone for good: "
            said = explained(f"{said}trtgate baseline remove {case_id}", Explanation.MISSING_CASE)
            gone = Notice(said, Severity.NOTICE)
            terminalreporter.write_line(str(gone))
        new = [result for result in results if result.verdict is profile_gate.LayersVerdict.NEW and not result.stored]
        if new:
            news = f"this accelerator has no profile of {number_of(len(new), 'case')}: {profile_gate.RECORD_COMMAND}"
            news = explained(news, Explanation.NEW_CASE)
            terminalreporter.write_line(str(Notice(news, Severity.NEW)), bold=True)
        stored = sum(result.stored for result in results)
        if stored:
            terminalreporter.write_line(f"stored: the profiles of {number_of(stored, 'case')}")
        terminalreporter.write_line(f"files: {os.path.dirname(results[0].folder)}/CASE/")

    def _gone(self) -> list[str]:
        from ..profiles import profile_files

        run, suites = self._run, self._run.suites
        if suites.uncollected():
            return []
        with contextlib.suppress(OSError):  # what can't be read failed the tests
            stored = profile_files.stored_baselines(run.options.baselines, run.accelerator.key).values()
            known = run.suite.cases if suites.elsewhere is None else suites.elsewhere.known_cases
            return sorted({*stored} - {*known})
        return []
