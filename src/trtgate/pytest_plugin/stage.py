"""A run that is a stage of a larger one: a shard of its cases, or the confirmation of what a merge suspects.

It measures what the policy asks for, judges nothing, and leaves what it found for `trtgate merge`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ..common.errors import PROBLEMS, TrtgateError, sentence_of
from ..common.explanations import Explanation, explained
from ..common.notices import Severity
from ..common.text_columns import number_of
from ..common.urls import without_secrets
from ..fleet import shards
from . import kept_runs, stage_manifest
from .case_items import case_id_of, is_latency
from .run_document import Collected, coverage_report, layers_report
from .stage_evidence import StageEvidence, now

if TYPE_CHECKING:
    from ..fleet.manifest import Manifest
    from ..fleet.stage_record import CaseEvidence, StageRecord
    from .gate_run import GateRun

EXITS = pytest.ExitCode
ENDED = (EXITS.OK, EXITS.TESTS_FAILED, EXITS.INTERRUPTED, EXITS.NO_TESTS_COLLECTED)
"""How a run ends that leaves something."""
NAMES_THE_PART = ("--trtgate-shard", "--trtgate-confirm", "--trtgate-shard-by")


class Stage:
    """Takes its part of the cases, and writes into the run's file what was found of them."""

    def __init__(self, run: GateRun, found: StageEvidence, collected: Collected) -> None:
        self._run = run
        self._found = found
        self._collected = collected
        self._attempt = uuid.uuid4().hex
        self._started = now("microseconds")  # the first attempt counts
        self._wanted: set[str] = set()
        self._ended: set[str] = set()
        self._complete: bool | None = None
        """Whether every test was run to its end; None while the run goes on."""

    # Its part of the cases

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Leave the tests of other shards out, once all filters have chosen."""
        if self._run.suite_problem:
            return
        try:
            self._divide(session, items)
        except PROBLEMS as error:
            self._run.suite_problem = sentence_of(error)

    def _divide(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        run, wanted = self._run, self._found.open
        collected = {case_id_of(item) for item in items}
        case_ids = [case_id for case_id in run.catalogue.cases if case_id in collected]  # whoever shuffles the tests
        if not case_ids:
            option = "--trtgate-shard" if wanted is None else "--trtgate-confirm"
            raise TrtgateError(f"{option}: no test of a case was collected that it could take")
        if wanted is None:
            count, by = shards.parse(self._found.part).count, run.options.shard_by
        else:
            count, by = len(wanted.manifest.shards), wanted.manifest.by
        manifest = stage_manifest.make(run, session, items, case_ids, count=count, by=by)
        if wanted is not None:
            self._refuse_another(manifest, wanted.manifest)
        self._found.manifest = manifest
        its = set(manifest.shard_of(self._found.part) if wanted is None else wanted.evidence)
        kept = [item for item in items if self._takes(item, its)]
        taken, chosen = {case_id_of(item) for item in kept}, set(kept)
        run.latency.made &= taken
        run.accuracy.made &= taken if wanted is None else set()
        others = [item for item in items if item not in chosen]
        items[:] = kept
        if others:
            run.config.hook.pytest_deselected(items=others)

    def _takes(self, item: pytest.Item, its: set[str]) -> bool:
        """Whether this stage runs a test: of its cases; the first shard those too that are of no case."""
        case_id = case_id_of(item)
        if self._found.open is not None:
            return is_latency(item) and case_id in its
        return case_id in its if case_id is not None else self._found.part.startswith("1/")

    def _refuse_another(self, here: Manifest, wanted: Manifest) -> None:
        from ..fleet.manifest import differences

        said = differences(here, wanted)
        if said:
            said = f"--trtgate-confirm {self._run.options.confirm}: this run is not the one of it: {said}"
            raise TrtgateError(explained(said, Explanation.SHARD_REJECTED))

    # What it leaves

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember which tests are to be run."""
        self._wanted = {item.nodeid for item in session.items}

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Remember which were."""
        self._ended.add(nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Let a run's file say which stage it is of: while the run goes on, too, since it may be killed."""
        from ..fleet.stage_record import KEY

        if self._found.manifest is None:
            return
        ended = self._complete is not None
        output_json[KEY] = msgspec.to_builtins(self._record(self._found.of_cases if ended else {}))
        output_json["trtgate"] = {**output_json["trtgate"], "stage": self._name}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the run, whatever came of it."""
        if session.config.option.collectonly or self._found.manifest is None or session.exitstatus not in ENDED:
            return
        if session.exitstatus == EXITS.NO_TESTS_COLLECTED:
            session.exitstatus = EXITS.OK  # there are more shards than cases
        run = self._run
        try:
            self._status = int(session.exitstatus)
            ended = session.exitstatus != EXITS.INTERRUPTED and self._wanted <= self._ended
            self._complete = ended and not run.options.source.changed()
            path = run.save()
            run.say(f"run saved: {os.path.relpath(path, run.config.invocation_params.dir)}")
            run.notices += [said] if (said := kept_runs.keep(run, path)) else []
            run.say(self._said(), Severity.NOTICE)
        except PROBLEMS as error:
            run.say(explained(sentence_of(error), Explanation.FILE_FAULT), Severity.ERROR)
            session.exitstatus = session.exitstatus or EXITS.TESTS_FAILED

    _status = int(EXITS.INTERRUPTED)

    @property
    def _name(self) -> str:
        return f"shard {self._found.part}" if self._found.open is None else self._found.part

    def _said(self) -> str:
        assert self._found.manifest is not None
        if not self._complete:
            return f"{self._name}: not run to its end"
        measured, of_all = len(self._found.of_cases), len(self._found.manifest.timed)
        measured_cases = f"{measured} of {number_of(of_all, 'case')} measured"
        return f"{self._name}: {measured_cases}, none judged: trtgate merge judges all shards"

    def _record(self, evidence: Mapping[str, CaseEvidence]) -> StageRecord:
        from ..fleet.stage_record import CaseOutcome, StageRecord
        from ..report.junit import TestOutcome
        from ..report.run_report import Failure

        run, collected, manifest = self._run, self._collected, self._found.manifest
        assert manifest is not None
        return StageRecord(
            manifest=manifest,
            part=self._found.part,
            attempt=self._attempt,
            started=self._started,
            complete=bool(self._complete),
            seconds=round(run.spent.total_s, 1),
            exit_status=self._status,
            command=_without_the_part([str(one) for one in run.config.invocation_params.args]),
            accelerator=run.accelerator,
            latency={name: CaseOutcome(seen.outcome, seen.failure) for name, seen in collected.latency.items()},
            evidence=dict(evidence),
            failed=sorted(run.failed),
            gone=self._gone(),
            unchecked=self._found.unchecked,
            coverage=[coverage_report(name, seen, run.devices.release) for name, seen in collected.coverage.items()],
            profiles=[layers_report(name, seen) for name, seen in collected.profiles.items()],
            failures=[Failure(test=test, sentence=said) for test, said in collected.others.items()],
            notices=[*run.notices, *run.coverage_notices],
            tests=[
                TestOutcome(
                    nodeid=name, outcome=one.outcome, said=one.failure, seconds=one.seconds, case=one.latency_of
                )
                for name, one in collected.tests.items()
            ],
        )

    def _gone(self) -> list[str]:
        """Return the cases of the base that the suite does not have any more, but for those that a filter left out."""
        run = self._run
        if run.options.base is None:
            return []
        taken = run.options.selection.takes_id
        return [name for name in run.base_cases if name not in run.suite.cases and taken(name)]


def _without_the_part(arguments: list[str]) -> list[str]:
    found, follows = [], False
    for argument in arguments:
        if follows:
            follows = False
        elif argument in NAMES_THE_PART:
            follows = True
        elif argument.partition("=")[0] not in NAMES_THE_PART:
            found.append(without_secrets(argument))
    return found
