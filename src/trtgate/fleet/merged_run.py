"""The one judge of a run that was measured in parts: the same policy on the same evidence as in a run of one part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError, explaining
from ..common.explanations import Explanation, bare, explained
from ..common.files import is_there, read_bytes
from ..common.notices import Notice, Severity
from ..common.run_folder import RunFolder
from ..common.text_columns import first_few, number_of
from ..common.version import VERSION
from ..gate import baselines
from ..gate.case_result import CaseResult
from ..gate.gate import Gate
from ..gate.outcome import Kind, outcome
from ..gate.policy import Conclude, Situation, concluded_so_far, next_step
from ..gate.run_options import Options
from ..gate.sentences import advice
from ..launches.base_revision import BaseRequest
from ..report.junit import TestOutcome
from ..suite.cases import Case
from ..suite.selection import Selection
from ..suite.suite_source import SuiteSource
from ..timing.device_state import ONE
from .gathering import Gathering
from .manifest import Manifest
from .stage_record import CaseEvidence, CaseOutcome, StageFile

NOT_CONFIRMED = "it is not confirmed yet"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class MergedRun:
    """All cases of a run, judged once.

    Raises TrtgateError, on construction, for a baseline or a trtgate that is not the one of the shards.
    """

    def __init__(self, gathering: Gathering, folder: Path, root: Path, saved: RunFolder) -> None:
        self.gathering, self.manifest = gathering, gathering.manifest
        self.accelerator = gathering.first.record.accelerator
        options = options_of(self.manifest, folder, root)
        _check_version(self.manifest)
        _check_baseline(self.manifest, baselines.path_of(folder, self.accelerator.key))
        self.gate = Gate(options, self.accelerator, saved)
        self.cases = {one.id: one.case for one in self.manifest.cases}
        self.outcomes: dict[str, CaseOutcome] = {}
        """What became of each case's test."""
        self.evidence: dict[str, CaseEvidence] = {}
        """Of each case that was judged."""
        self.entries: dict[str, StageFile] = {}
        """In which file each case's benchmark is."""
        self.open: dict[str, CaseEvidence] = {}
        """What is suspected and not confirmed yet."""
        self.notices = list(gathering.notices)
        self.undecided: list[Notice] = []
        """What could not be told, a line a case: of many the first ones are shown."""
        self._new: list[str] = []
        divided = zip(self.manifest.names, self.manifest.shards, strict=True)
        self._parts = {case_id: part for part, shard in divided for case_id in shard}
        limits = {one.id: one.limits for one in self.manifest.cases}
        for case in self.cases.values():
            self._judge(case, limits[case.id])
        self.gate.adjust()
        self._tell_missing()
        self._tell_of_shards()

    @property
    def tests(self) -> list[TestOutcome]:
        """All tests of its shards."""
        found = [one for file in self.gathering.shards.values() for one in file.record.tests]
        return sorted(found, key=lambda one: one.nodeid)

    # One case

    def _judge(self, case: Case, limits: Mapping[str, float]) -> None:
        file = self.gathering.shards.get(self._parts[case.id])
        if file is None:
            return
        found, seen = file.record.evidence.get(case.id), file.record.latency.get(case.id)
        if found is None:
            self.outcomes[case.id] = seen or CaseOutcome(FAILED, _outside(f"{case.id}: no test of it was run"))
            if seen is not None and seen.outcome == PASSED and case.id not in self.manifest.skipped:
                said = _outside(f"{case.id}: its test passed, and measured nothing")
                self.outcomes[case.id] = CaseOutcome(FAILED, said)
            return
        confirmed = self._confirmation_of(case.id, found)
        if confirmed is not None:
            file, seen = confirmed, confirmed.record.latency.get(case.id)
            found = confirmed.record.evidence.get(case.id, found)
        seen = seen or CaseOutcome(FAILED, _outside(f"{case.id}: its test came to no end"))
        failed = seen.outcome == FAILED  # measured, and a fixture or a hook failed its test
        self.outcomes[case.id] = seen
        if failed and file.entry(case.id) is None:
            return
        self.evidence[case.id], self.entries[case.id] = found, file
        try:
            result = self._concluded(case, found, limits, file.record.accelerator)
        except TrtgateError as error:
            self.outcomes[case.id] = CaseOutcome(FAILED, explained(str(error), Explanation.SHARD_REJECTED))
            return
        except (ArithmeticError, LookupError, ValueError, TypeError, AssertionError, StopIteration) as error:
            raise TrtgateError(
                f"{file.path}: what it holds of case {case.id!r} can't be judged ({type(error).__name__}: {error})"
            ) from error
        self.gate.add(result)
        first = found.evidence.first
        if not self.manifest.base and first is not None:
            self.gate.remark(case.id, first.candidate.build)
        if failed:
            self.open.pop(case.id, None)
            self.gate.add(msgspec.structs.replace(result, stored=False))
        else:
            self._end(case, result)

    def _concluded(
        self, case: Case, found: CaseEvidence, limits: Mapping[str, float], accelerator: Accelerator
    ) -> CaseResult:
        situation = self._situation(case, found, limits, accelerator)
        step = next_step(situation)
        if isinstance(step, Conclude):
            return step.result
        self.open[case.id] = found
        return concluded_so_far(situation, NOT_CONFIRMED)

    def _situation(
        self, case: Case, found: CaseEvidence, limits: Mapping[str, float], accelerator: Accelerator
    ) -> Situation:
        situation = self.gate.situation(
            case, accelerator=msgspec.structs.replace(accelerator, uuid=found.uuid), tests=self.manifest.tests,
            accepted=False, pairable=found.pairable, base_cases=() if found.lacking else (case.id,),
        )  # fmt: skip
        return msgspec.structs.replace(
            situation, limit_of=limits.__getitem__, known=found.known, evidence=found.evidence
        )

    def _confirmation_of(self, case_id: str, found: CaseEvidence) -> StageFile | None:
        """Return the first confirmation that goes on with what was measured of a case, and say what does not count."""
        known: StageFile | None = None
        for file in self.gathering.confirmations:
            more = file.record.evidence.get(case_id)
            if more is None and case_id not in file.record.latency:
                continue
            if more is not None and not _goes_on(more, found):
                said = f"{file.name} goes on with another measurement of {case_id}, and does not count"
                self.notices.append(Notice(explained(said, Explanation.SHARD_REJECTED), Severity.ERROR))
            elif known is not None:
                said = f"{file.name} is doubled: {case_id} was confirmed by {known.path} first, which counts"
                self.notices.append(Notice(explained(said, Explanation.SHARD_REJECTED), Severity.ERROR))
            else:
                known = file
        return known

    def _end(self, case: Case, result: CaseResult) -> None:
        """Let the verdict of a case become the outcome of its test."""
        if case.id in self.open:
            self.outcomes[case.id] = CaseOutcome(SKIPPED, result.sentence)
            self.notices.append(Notice(result.sentence, Severity.WARNING))
            return
        verdict = str(result.verdict or "")
        quarantine = case.settings.quarantine
        found = outcome(
            verdict, case.id, result.sentence, require=self.manifest.require, quarantine=quarantine,
            suspected=result.suspected, moved=result.moved,
            advice=advice(verdict, case.id, beside_base=bool(self.manifest.base)) if verdict == "regressed" else "",
        )  # fmt: skip
        for notice in found.notices:
            (self.notices if notice.loud or found.kind is not Kind.SKIPPED else self.undecided).append(notice)
        if verdict == "new" and found.kind is Kind.PASSED:
            self._new.append(case.id)
        self.outcomes[case.id] = CaseOutcome(_TESTS[found.kind], found.text)
        if found.kind is Kind.FAILED:
            self.gate.add(msgspec.structs.replace(result, stored=False))

    # What is missing, and what shards said

    def _tell_missing(self) -> None:
        """Say which cases of the baseline or the base nobody measured, but for those of missing shards."""
        manifest, shards = self.manifest, self.gathering.shards.values()
        where = f"base {manifest.base}" if manifest.base else "baseline"
        excused = {case for file in shards for case in file.record.failed}
        excused |= {*self.gathering.missing, *manifest.left_out}
        excused |= {case for case, seen in self.outcomes.items() if seen.outcome == FAILED}
        gone = dict.fromkeys(case for file in shards for case in file.record.gone)
        missing = [] if manifest.base else self.gate.missing((), excused)
        self._tell_left_out(where)
        for case_id in (*missing, *gone):
            seen = self.outcomes.get(case_id)
            reason = manifest.skipped.get(case_id) or (seen.said if seen else "") or "not in the suite or not run"
            said = f"{case_id} is in the {where} and was not measured: {bare(reason)}"
            self.notices.append(Notice(explained(said, Explanation.MISSING_CASE), Severity.MISSING))
        if missing:
            self.notices.append(Notice("what is gone for good: trtgate baseline remove CASE"))

    def _tell_left_out(self, where: str) -> None:
        unchecked = sum(len(file.record.unchecked) for file in self.gathering.shards.values())
        left_out = {"not run": len(self.manifest.left_out), "accuracy not checked": unchecked}
        told = [
            Notice(f"{what}, as asked: {number_of(count, 'case')} of the {where}")
            for what, count in left_out.items()
            if count
        ]
        self.notices += told
        if told and "verdict" in self.manifest.require and not self.manifest.filters_typed:
            said = "a filter that is not on the command line (addopts, PYTEST_ADDOPTS, a conftest) left them out"
            said = explained(f"{said} (--trtgate-require=verdict)", Explanation.FILTER_HIDES)
            self.notices.append(Notice(said, Severity.ERROR))

    def _tell_of_shards(self) -> None:
        """Let shards that failed turn the run red, though nothing that they say of themselves is a failure."""
        for file in (*self.gathering.shards.values(), *self.gathering.confirmations):
            record = file.record
            self.notices += [one for one in record.notices if one not in self.notices]  # of coverage all shards say it
            tests = (record.latency.values(), record.coverage, record.profiles)
            told = any(one.outcome == FAILED for kind in tests for one in kind) or record.failures
            if record.exit_status and not told and not any(notice.failed for notice in record.notices):
                said = f"{file.name} ended with exit code {record.exit_status}"
                self.notices.append(Notice(explained(said, Explanation.SHARD_REJECTED), Severity.ERROR))

    @property
    def about_new(self) -> list[Notice]:
        """Say for which cases nothing is stored, or what the base lacks."""
        new, base = self._new, self.manifest.base
        lacking = [explained(f"the base {base} does not have {first_few(new, 2)}", Explanation.NEW_CASE)]
        said = [] if not new else lacking if base else self.gate.about_all_new(new)
        return [Notice(line, Severity.NEW) for line in said]

    @property
    def red(self) -> bool:
        """Whether the run fails, whatever a confirmation may say."""
        files = (*self.gathering.shards.values(), *self.gathering.confirmations)
        return (
            any(notice.failed for notice in self.notices)
            or any(one.outcome == FAILED for one in self.outcomes.values())
            or any(file.record.exit_status for file in files)
        )


def _outside(text: str) -> str:
    return explained(text, Explanation.OUTSIDE_INTERFERENCE)


_TESTS = {Kind.PASSED: PASSED, Kind.FAILED: FAILED, Kind.SKIPPED: SKIPPED, Kind.EXPECTED_FAILURE: SKIPPED}


def options_of(manifest: Manifest, folder: Path, root: Path) -> Options:
    """Return the options that shards were run with, as far as they judge."""
    return Options(
        source=SuiteSource(root=str(root)), selection=Selection(), baselines=folder, compare=manifest.compare,
        base=BaseRequest(revision=manifest.base) if manifest.base else None, compare_file=None, update=False,
        accepted=(), require=frozenset(manifest.require), limits={}, command_limits={}, launches=manifest.launches,
        timeout_s=0.0, strict_layers=False, zoo=False, report=None, cache=None, prebuild=None, builds_in_turn=False,
        gpus="", build_only=False, timing_off="", streams=manifest.streams or ONE, cold_starts=manifest.cold_starts,
        load=manifest.load, changed_only=manifest.changed,
    )  # fmt: skip


def digest_of(baseline: Path) -> str:
    """Return what tells a baseline from others; empty where there is none. Raises OSError."""
    return hashlib.sha256(read_bytes(baseline)).hexdigest() if is_there(baseline) else ""


@explaining(Explanation.SHARD_REJECTED)
def _check_version(manifest: Manifest) -> None:
    """Raise TrtgateError unless this trtgate is the one whose rules said what shards had to measure."""
    if manifest.trtgate != VERSION:
        raise TrtgateError(
            f"the shards of {manifest.key} were measured by trtgate {manifest.trtgate}, and this is {VERSION}: pip "
            f"install trtgate=={manifest.trtgate}"
        )


@explaining(Explanation.SHARD_REJECTED)
def _check_baseline(manifest: Manifest, path: Path) -> None:
    """Raise TrtgateError unless the baseline is the one by which the shards decided what to measure."""
    found = digest_of(path) if manifest.compare else ""
    if found == manifest.baseline:
        return
    there = f"{path} has digest {found[:12]}" if found else f"there is no {path}"
    theirs = f"one with digest {manifest.baseline[:12]}" if manifest.baseline else "none"
    raise TrtgateError(
        f"the shards of {manifest.key} were measured with another baseline: {there}, they had {theirs}; check out "
        f"their commit {manifest.commit[:12]}, or name the folder with --baselines"
    )


def _goes_on(more: CaseEvidence, found: CaseEvidence) -> bool:
    one, other = more.evidence, found.evidence
    mine, theirs = ((e.first, e.further, e.host, c.known, c.uuid) for e, c in ((one, more), (other, found)))
    return mine == theirs
