"""The manifest of a run that is divided: all that was collected, before a shard takes its part."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from ..common import git
from ..common.errors import TrtgateError
from ..common.metrics import METRICS
from ..common.version import VERSION
from ..fleet import shards
from . import run_filters
from .case_items import case_id_of, is_latency
from .markers import held_to, marker_limits

if TYPE_CHECKING:
    from ..fleet.manifest import Manifest, ManifestCase
    from .gate_run import GateRun


def make(
    run: GateRun, session: pytest.Session, items: list[pytest.Item], case_ids: list[str], *, count: int, by: str
) -> Manifest:
    """Return the manifest of a run of `case_ids`, divided into `count` shards."""
    from ..fleet.manifest import Manifest, digest_of_suite
    from ..fleet.merged_run import digest_of
    from ..gate import history

    options, here = run.options, run.accelerator
    tests = {case_id_of(item): item for item in items if is_latency(item)}
    cases = {name: _of_test(run, name, tests[name]) for name in case_ids if name in tests}
    skipped = {name: reason for name, reason in run.skip_reasons.items() if name in case_ids}
    timed = [run.suite.cases[name] for name in cases if name not in skipped]
    known = list(run.gate.baseline.cases) if run.gate.baseline else []
    missing = [name for name in known if name not in cases or name in skipped]
    commit = history.commit_of(run.json.commit_info)
    made = Manifest(
        key=here.key, kind=here.kind, versions=here.versions, trtgate=VERSION, commit=commit.id, dirty=commit.dirty,
        suite=digest_of_suite(options.source.root, options.source.sha256),
        baseline=digest_of(run.gate.baseline_path) if run.gate.baseline else "",
        compare=options.compare, base=str(options.base or ""), base_commit=_base_commit(run),
        require=tuple(sorted(options.require)), launches=options.launches, streams=options.streams,
        cold_starts=options.cold_starts, load=options.load, changed=options.changed_only,
        tests=run.gate.tests(timed), by=by,
        shards=shards.assigned(_groups(run, case_ids, by), _seconds(run, case_ids), count),
        cases=list(cases.values()), skipped=skipped,
        left_out=run_filters.left_out(session, run, missing, run.latency.deselected),
        filters_typed=run_filters.on_command_line(session.config),
    )  # fmt: skip
    return msgspec.json.decode(msgspec.json.encode(made), type=Manifest)  # as the other stages read it


def _groups(run: GateRun, case_ids: list[str], by: str) -> dict[str, str]:
    cases = run.catalogue.cases
    return {name: cases[name].model.whole if by == shards.MODEL else name for name in case_ids}


def _seconds(run: GateRun, case_ids: list[str]) -> dict[str, float | None]:
    """Return how long the newest stored session of each case took on such an accelerator; None where none says."""
    from ..gate import baselines

    found: dict[str, float | None] = dict.fromkeys(case_ids)
    path = baselines.path_of(run.options.baselines, run.accelerator.key)
    with contextlib.suppress(TrtgateError):  # who compares with it is told
        for name, record in baselines.read(path).cases.items():
            if "measure_s" in record.figures:
                found[name] = record.figures["measure_s"] + record.figures.get("ready_s", 0.0)
    return {name: found[name] for name in case_ids}


def _of_test(run: GateRun, case_id: str, item: pytest.Item) -> ManifestCase:
    from ..fleet.manifest import ManifestCase

    case = held_to(marker_limits(item), run.suite.cases[case_id])
    limits = {metric: run.options.limit(metric, case, {}) for metric in METRICS}
    return ManifestCase(id=case.id, model=case.model.name, settings=msgspec.to_builtins(case.settings), limits=limits)


def _base_commit(run: GateRun) -> str:
    base = run.options.base
    if base is None or not base.revision:
        return ""
    root = Path(run.options.source.root)
    done = git.run(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base.revision}^{{commit}}")
    return done.stdout.strip()
