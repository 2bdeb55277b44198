"""A run's memory: what it compares with, what came of each case, what is to be stored. Knows no workers, no pytest."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..common import sealed_folder
from ..common.accelerator import Accelerator, check_kind
from ..common.explanations import Explanation, explained
from ..common.files import is_there
from ..common.metrics import sampled
from ..common.notices import Notice, Severity
from ..common.run_folder import RunFolder
from ..common.text_columns import first_few, number_of
from ..records.measurement import Build
from ..suite import quarantines
from ..suite.cases import Case
from ..verdict import Verdict
from . import baselines, compared_run, judging, kept_artifacts, known_programs, measurement_summary
from .baseline_record import CaseRecord
from .baselines import Run
from .case_result import CaseResult, adjusted
from .known_programs import Known
from .policy import Situation
from .run_options import Options
from .sentences import about_new, about_other_clock, about_wide_limits

NUMBERS = re.compile(r"[\d.]+")
"""What alone differs between a clock's notes in several launches of a case."""
MOST_NAMED = 2
"""Cases that a remark names."""


class Gate:
    """What a run judges cases by, and its results.

    Raises TrtgateError, on construction, for a baseline file that is broken or of another accelerator.
    """

    def __init__(self, options: Options, accelerator: Accelerator, folder: RunFolder) -> None:
        self._options = options
        self._accelerator = accelerator
        self._cards = {accelerator.uuid: accelerator}
        self._folder = folder
        self._results: dict[str, CaseResult] = {}
        self._kept: dict[str, Path] = {}
        self._remarked: dict[str, list[str]] = {}
        self.baseline = self._find_baseline() if options.compare else None

    # What cases are compared with

    @property
    def baseline_path(self) -> Path:
        """Where this accelerator's baseline lies, or would."""
        return self._options.compare_file or baselines.path_of(self._options.baselines, self._accelerator.key)

    def _find_baseline(self) -> Run | None:
        path = self.baseline_path
        if not is_there(path):
            return None
        found = compared_run.read(path) if self._options.compare_file else baselines.read_baseline(path)
        check_kind(path, found.accelerator, self._accelerator, "this machine")
        return found

    def situation(
        self, case: Case, *, accelerator: Accelerator, tests: int, accepted: bool, pairable: bool,
        base_cases: Collection[str] = (), build: Build | None = None,
    ) -> Situation:  # fmt: skip
        """Return where judging a case on a device begins; `base_cases` are the base's, where there is one."""
        options, record, base = self._options, self._record(case.id), self._options.base
        self._cards[accelerator.uuid] = accelerator
        new = ""
        if base is None and record is None:
            new = f"NEW: {self.about_new([case.id])}"
        elif base is not None and case.id not in base_cases:
            new = explained(f"{case.id}: the base has no such case", Explanation.NEW_CASE)
        expired = case.settings.quarantine is not None and quarantines.in_force(case.settings.quarantine) is None
        return Situation(
            case=case,
            accelerator=accelerator,
            limit_of=lambda metric: options.limit(metric, case, {}),
            tests=tests,
            record=record,
            baseline=str(self.baseline_path),
            new=new,
            compare=options.compare,
            update=options.update,
            accepted=accepted,
            failing=expired and not accepted,
            beside_base=base is not None,
            pairable=pairable,
            known=self._known(case, build, record, accelerator),
        )

    def _known(
        self, case: Case, build: Build | None, record: CaseRecord | None, accelerator: Accelerator
    ) -> Known | None:
        """Return the session that makes measuring a case's device latency needless, where a run may leave it out."""
        changed_only = self._options.changed_only
        if changed_only is None or accelerator.kind != "gpu":
            return None
        machine, now = self.machine(accelerator.uuid), datetime.datetime.now(datetime.UTC)
        return known_programs.known(case, build, record, machine, changed_only, now)

    def machine(self, uuid: str) -> dict[str, str]:
        """Return what decides a device latency on a card of this machine beside the program."""
        card = self._cards.get(uuid) or msgspec.structs.replace(self._accelerator, uuid=uuid)
        return known_programs.machine_part(card, self._options.streams)

    def tests(self, cases: Iterable[Case]) -> int:
        """How many statistical judgements a run of these cases makes: they share the error rate (Bonferroni).

        The change since the anchor is one more for each sampled metric of a case that has sessions beyond it.
        """
        options, count = self._options, 0
        asked = {"gpu": self._accelerator.kind == "gpu", "cold": bool(options.cold_starts), "load": bool(options.load)}
        for case in cases:
            record = self._record(case.id)
            count += len(judging.statistical_metrics(case, **asked))
            count += len(sampled(**asked)) * (record is not None and record.anchored)
        return max(1, count)

    def _record(self, case_id: str) -> CaseRecord | None:
        return self.baseline.cases.get(case_id) if self.baseline else None

    def record_of(self, case: Case, result: CaseResult) -> CaseRecord:
        """Return what a file stores of a case that was judged."""
        base = str(self._options.base or "")
        of_update = self._options.compare_file is None  # what is updated is what it was judged by
        stored = self._record(case.id) if of_update else None
        here = self._accelerator
        machine = self.machine(result.measurement.uuid or here.uuid)
        return measurement_summary.record_of(case, result, here.uuid, base, stored, here.versions, machine)

    def recorded(self, case_id: str, figure: str) -> float | None:
        """Return a figure of a case's baseline, such as how long it measured; None where there is none."""
        record = self._record(case_id)
        return None if record is None else record.figures.get(figure)

    def recorded_costs_s(self, cases: Iterable[Case], *, built: Collection[str]) -> dict[str, float | None]:
        """Return what cases took to measure when they were recorded, and to build where they are not `built` yet.

        None where that is not known.
        """
        found: dict[str, float | None] = {}
        for case in cases:
            figures = ("measure_s",) if case.id in built else ("measure_s", "ready_s")
            known = [value for name in figures if (value := self.recorded(case.id, name)) is not None]
            found[case.id] = sum(known) if known else None
        return found

    def cards_of(self, case_id: str) -> list[str]:
        """Return the cards with sessions that a case may be compared with, those with most of them first."""
        record = self._record(case_id)
        return [] if record is None else record.of_streams(self._options.streams).cards

    def other_keys(self) -> list[str]:
        """Return the other accelerators that there are baselines for."""
        with contextlib.suppress(OSError):  # it is a hint
            return [key for key in baselines.keys(self._options.baselines) if key != self._accelerator.key]
        return []

    def about_all_new(self, case_ids: Sequence[str]) -> list[str]:
        """Say for which cases nothing is stored, or nothing of their clock, and which could not be recorded either."""
        of_clocks: dict[str, list[str]] = {}
        unknown = [case_id for case_id in case_ids if self._record(case_id) is None]
        for case_id in case_ids:
            if case_id not in unknown:
                of_clocks.setdefault(self._results[case_id].measurement.clock, []).append(case_id)
        said = [self.about_new(unknown)] * bool(unknown)
        for clock, some in of_clocks.items():
            stored = sum((Counter(record.clocks) for case_id in some if (record := self._record(case_id))), Counter())
            said.append(about_other_clock(some, clock, stored))
        void = {case_id: self._results[case_id].void for case_id in case_ids if self._results[case_id].void}
        return [*said, measurement_summary.about_void(void)] if void else said

    def about_new(self, case_ids: Sequence[str]) -> str:
        """Say that nothing is stored for some cases: where it was looked for, and where else there is something."""
        path, root = self.baseline_path, Path(self._options.source.root)
        key, recording = self._accelerator.key, self._options.update
        if path.exists():
            return about_new(case_ids, key, self.other_keys(), recording=recording)
        names = (f"*/{path.parent.name}/{path.name}", f"*/*/{path.parent.name}/{path.name}")
        found = sorted(other for name in names for other in root.glob(name) if other != path)
        shown = [str(one.relative_to(root)) if one.is_relative_to(root) else str(one) for one in (path, *found)]
        return about_new(case_ids, key, self.other_keys(), shown[0], *shown[1:2], recording=recording)

    # What came of them

    @property
    def results(self) -> Mapping[str, CaseResult]:
        """Case id → its result, in the order in which they came."""
        return self._results

    @property
    def notices(self) -> list[Notice]:
        """What is worth saying at the end, beside the verdicts."""
        results = self._results.values()
        unused = [
            Notice(explained(line, Explanation.BASELINE_BROKEN), Severity.WARNING)
            for line in (self.baseline.unused if self.baseline else ())
        ]
        wide = [Notice(line, Severity.WARNING) for line in about_wide_limits(results)]
        return (
            unused
            + wide
            + self._about_same()
            + [notice for result in results for notice in result.notices]
            + self.remarks
        )

    def _about_same(self) -> list[Notice]:
        """Say how many cases were not measured, how many of these were all the same, and how to have the same again."""
        changed_only = self._options.changed_only
        left_out = sum(result.verdict is Verdict.SAME for result in self._results.values())
        checked = [result.case_id for result in self._results.values() if result.checked]
        if changed_only is None or not (left_out or checked):
            return []
        named = f" ({first_few(checked, MOST_NAMED)})" if checked else ""
        said = (
            f"same: the device latency of {number_of(left_out, 'case')} was not measured; that of "
            f"{len(checked)} was, at random{named}: "
            f"--trtgate-changed-seed {changed_only.seed} chooses the same ones again"
        )
        return [Notice(said, Severity.NOTICE)]

    @property
    def remarks(self) -> list[Notice]:
        """What changes how figures are to be read, each once with its cases: of clocks, and of how outputs compared."""
        cases = {text: list(names) for text, names in self._remarked.items()}
        for result in self._results.values():
            alike = {NUMBERS.sub("", text): text for text in result.measurement.notes}
            for text in alike.values():
                cases.setdefault(text, []).append(result.case_id)
        return [Notice(f"{first_few(names, MOST_NAMED)}: {text}", Severity.NOTICE) for text, names in cases.items()]

    def remark(self, case_id: str, build: Build | None) -> None:
        """Remember what changes how a case's figures are to be read."""
        for text in () if build is None else build.remarks:
            names = self._remarked.setdefault(text, [])
            names += [case_id] * (case_id not in names)

    def add(self, result: CaseResult) -> None:
        """Remember a result."""
        self._results[result.case_id] = result

    def adjust(self) -> None:
        """Let the results have Holm's adjusted p-values: all of them are known."""
        self._results = adjusted(self._results)

    def keep(self, case: Case, artifact: Path | None) -> None:
        """Keep a case's compiled module, if there is one, to be measured beside later ones if its baseline is stored.

        It stays where it is too, for what else this run does with it.
        """
        if artifact is None:
            return
        kept = self._folder.private("kept")
        for file in artifact.iterdir():
            sealed_folder.link(file, kept / file.name)
        self._kept[case.id] = kept

    def missing(self, base_cases: Collection[str], excused: Collection[str]) -> list[str]:
        """Return the cases of the baseline, or of the base, that got no result and are not in `excused`."""
        stored = list(self.baseline.cases) if self.baseline else base_cases
        return [case_id for case_id in stored if case_id not in self._results and case_id not in excused]

    def add_to_run(self, document: Mapping[str, Any]) -> None:
        """Store cases that were just measured. Raises TrtgateError."""
        self._folder.add_to_run(document, self._accelerator.key)

    def save_run(self, document: Mapping[str, Any]) -> Path:
        """Store everything this run measured so far, regressed cases too. Raises TrtgateError."""
        return self._folder.save_run(document, self._accelerator.key)

    def update_baseline(self, run: Run) -> list[baselines.Update]:
        """Write the cases of a saved run that may be stored, and keep their compiled modules; some may be refused.

        A case that was judged and is not in the run was refused before that.
        """
        saved = run.cases.keys() | run.unusable.keys()
        ids = [case_id for case_id, result in self._results.items() if result.stored and case_id in saved]
        done = baselines.update(self._options.baselines, run, ids) if ids else []
        for update in done:
            kept = self._kept.get(update.case_id)
            if kept is not None and not update.refused:
                recorded = run.cases[update.case_id].sessions[-1].recorded
                uuid = self._results[update.case_id].measurement.uuid
                card = msgspec.structs.replace(self._accelerator, uuid=uuid)
                kept_artifacts.keep(self._folder.path, kept, update.case_id, recorded, card)
        return done
