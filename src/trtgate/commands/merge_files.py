"""What `trtgate merge` does: read what shards left, judge it, write the run and its reports, and say all of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..common import run_places
from ..common.errors import TrtgateError
from ..common.files import locked, write_json, write_whole
from ..common.notices import Notice
from ..common.run_folder import RUNS, RunFolder
from ..common.run_places import Folder, Place
from ..common.text_columns import Line
from ..fleet import gathering, merged_document, stage_record
from ..fleet.merged_run import MergedRun
from ..report import github_annotations, junit, load_lines, markdown, report_parts, run_report, terminal_table
from ..report.case_row import row_of
from ..report.run_report import RunReport


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What a merge has to say, what GitHub is told where it reads the output, and the exit code."""

    lines: list[Line]
    annotations: list[str]
    status: int


class _Written(msgspec.Struct, frozen=True):
    """One accelerator's run, judged, and where it was saved and kept; empty where nothing was measured."""

    run: MergedRun
    report: RunReport
    saved: str
    kept: str = ""
    notices: list[Notice] = []
    """What keeping it has to say."""


def merge(
    paths: Sequence[Place], folder: Path, root: Path, *, command: Sequence[str] = (), report: Path | None = None,
    junit_xml: Path | None = None, output: Path | None = None, verbose: bool = False, kept: Folder | None = None,
) -> Merged:  # fmt: skip
    """Judge the runs that some files are of, and write what is asked for.

    With several kinds of accelerators there is a table, a run and a report for each. `kept`: where a run and its report
    are put as well; where that fails, a line says so. Raises TrtgateError, with nothing
    judged and nothing written, for a file that is none of a stage, and for another baseline than that of the shards.
    """
    for option, target in (("--output", output), ("--report", report), ("--junit-xml", junit_xml)):
        _check_target(option, target)
    files = [stage_record.read(path) for path in paths]
    lines: list[Line] = []
    saved = RunFolder(root / ".trtgate", lines.append)
    judged = [MergedRun(one, folder, root, saved) for one in gathering.gathered(files)]
    documents = [merged_document.document(run) for run in judged]
    keys = [run.accelerator.key for run in judged]
    targets = [saved.path / RUNS / merged_document.file_name(run) for run in judged]
    targets = targets if output is None else _each(output, keys)
    written = [
        _Written(run, _reported(run, folder, command, asked=report is not None), _saved(document, target))
        for run, document, target in zip(judged, documents, targets, strict=True)
    ]
    if kept is not None:
        written = [_kept(one, kept, asked=report is not None) for one in written]
    lines += [line for one in written for line in _lines(one, verbose=verbose)]
    lines += _reports(written, report) if report is not None else []
    if junit_xml is not None:
        content = junit.render([
            junit.JudgedRun(report=one.report, results=one.run.gate.results, tests=one.run.tests) for one in written
        ])  # fmt: skip
        lines.append(_wrote(junit_xml, content))
    lines += _told_github(written)
    statuses = [one.report.exit_status for one in written]
    annotated = os.environ.get("GITHUB_ACTIONS") == "true"
    annotations = [line for one in written for line in github_annotations.lines(one.report)] if annotated else []
    return Merged(lines=lines, annotations=annotations, status=1 if 1 in statuses else max(statuses))


def _check_target(option: str, target: Path | None) -> None:
    """Raise TrtgateError for a file that a stage left: `--output *.json` names the first of them."""
    if target is None or not target.is_file():
        return
    try:
        found = stage_record.read(target)
    except TrtgateError:
        return
    raise TrtgateError(f"{option} {target} is {found.name}, which would be lost: name another file")


def _reported(run: MergedRun, folder: Path, command: Sequence[str], *, asked: bool) -> RunReport:
    found = merged_document.report(run, command)
    return msgspec.structs.replace(found, matrix=report_parts.matrix(folder)) if asked else found


def _saved(document: dict[str, object], target: Path) -> str:
    """Save a run in which something was measured; returns its path. Raises TrtgateError where that fails."""
    if not document["benchmarks"]:
        return ""
    with locked(target):
        write_json(target, document)
    return os.path.relpath(target)


def _kept(one: _Written, folder: Folder, *, asked: bool) -> _Written:
    """Put a run, and its report where one was asked for, where they outlive this machine."""
    if not one.saved:
        return one
    run, name = one.run, merged_document.file_name(one.run)
    kind = run_places.OPEN if run.open else run_places.MERGED
    contents = {kind: Path(one.saved).read_bytes()}
    if asked:
        contents[run_places.REPORT] = msgspec.json.encode(one.report)
    key, commit = run.accelerator.key, run.manifest.commit
    done = {
        its: run_places.keep(folder, name, content, key=key, commit=commit, kind=its, here=one.saved)
        for its, content in contents.items()
    }
    return msgspec.structs.replace(one, kept=done[kind][0], notices=[said for _, said in done.values()])


def _each(path: Path, keys: Sequence[str]) -> list[Path]:
    """Return a path for each kind of accelerator: where there are several, its key is part of the name."""
    return [path if len(keys) == 1 else path.with_stem(f"{path.stem}-{key}") for key in keys]


# What is said


def _lines(one: _Written, *, verbose: bool) -> list[Line]:
    run, results = one.run, list(one.run.gate.results.values())
    rows = [row_of(result) for result in results]
    lines: list[Line] = [terminal_table.describe(run.accelerator)]
    if rows:
        lines += [terminal_table.table(rows), terminal_table.counts(rows)]
    for result in results if verbose else []:
        lines += [*[result.sentence] * bool(result.sentence), *load_lines.lines(result.case_id, result.measurement)]
    failed = [case for case in one.report.cases if case.outcome == run_report.FAILED]
    lines += [f"FAILED {_named(case.case_id, case.sentence)}" for case in failed]
    lines += [
        f"FAILED {_named(part.case_id, part.sentence)}"
        for part in _others(one.report)
        if part.outcome == run_report.FAILED
    ]
    lines += [f"FAILED {failure.test}: {failure.sentence}" for failure in one.report.failures]
    undecided = [] if verbose else terminal_table.few_undecided(run.undecided, "--verbose")
    lines += [str(notice) for notice in (*run.about_new, *one.report.notices, *undecided)]
    lines += [f"since the baseline was last recorded: {', '.join(one.report.environment)}"] * bool(
        one.report.environment
    )
    if one.saved:
        lines += [f"run saved: {one.saved}", *map(str, one.notices)]
    if run.open and one.saved:
        command = _confirming(run, one.kept or one.saved)
        lines.append(f"{len(run.open)} suspected and not confirmed; on such an accelerator: {command}")
    return [*lines, ""]


def _named(case_id: str, sentence: str) -> str:
    """Return what is said of a case, which mostly begins with its id."""
    return sentence if sentence.startswith(case_id) else f"{case_id}: {sentence}"


def _others(report: RunReport) -> list[run_report.CoverageReport | run_report.LayersReport]:
    return [*report.coverage, *report.profiles]


def _confirming(run: MergedRun, saved: str) -> str:
    """Return the command of the second stage; what shards say of themselves is quoted."""
    return shlex.join(["pytest", *run.gathering.first.record.command, f"--trtgate-confirm={saved}"])


def _reports(written: Sequence[_Written], path: Path) -> list[str]:
    """Write the report of each kind of accelerator."""
    targets = _each(path, [one.run.accelerator.key for one in written])
    for one, target in zip(written, targets, strict=True):
        run_report.write(target, one.report)
    return [f"report: {target}" for target in targets]


def _wrote(path: Path, content: bytes) -> str:
    try:
        write_whole(path, content)
    except OSError as error:
        raise TrtgateError(f"{path} can't be written: {error.strerror}") from error
    return f"written: {path}"


def _told_github(written: Sequence[_Written]) -> list[str]:
    """Write the job's summary where GitHub asks for one; returns its annotations."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY", "")
    said = []
    if summary:
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.writelines(markdown.render(one.report) for one in written)
        except OSError as error:
            said.append(f"the job summary could not be written to {summary}: {error.strerror}")
    return said
