"""`trtgate selfcheck --panel`: the same four cases on every card and day say how far sessions and cards lie apart."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy import stats

from .. import verdict
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.explanations import Explanation, bare, explained
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..common.text_columns import Line, TextTable, number_of
from ..compiling import availability
from ..compiling.artifact_cache import CacheRequest
from ..gate import measurement_summary
from ..gate.panel_file import PanelCase, PanelFile, PanelRun
from ..gate.sentences import duration
from ..launches.comparison_side import Side
from ..launches.prebuild import Prebuilt
from ..launches.session import Session
from ..launches.worker_handle import LaunchError
from ..records.measurement import CaseMeasurement
from ..suite.settings import Settings
from ..suite.suite_source import Added, SuiteSource
from . import selfcheck_builds

PANEL = {
    "resnet18": Settings(frontend="dynamo", precision="fp16", batch=1, min_block_size=5),
    "regnet_y_400mf": Settings(frontend="dynamo", precision="fp16", batch=1, min_block_size=5),
    "mobilenet_v3_large": Settings(frontend="dynamo", precision="fp16", batch=8, min_block_size=5),
    "vit_b_16": Settings(frontend="dynamo", precision="fp32", batch=1, min_block_size=5),
}
"""Model of the zoo → its settings. Never changed, since files of years are compared; docs/gpu-states.md says which one
feels which state of the GPU."""
LAUNCHES = 5
"""As many as a recording has."""
CONFIDENCE = 0.95
MOST_PROBLEMS = 3
DIGITS = 6
"""Stored latencies have as many digits as those of a baseline."""


def source_here() -> SuiteSource:
    """Return where the panel's models come from: the zoo, with seeded random weights."""
    added = tuple(Added(name, settings) for name, settings in PANEL.items())
    return SuiteSource(root=str(Path.cwd()), zoo=tuple(PANEL), added=added)


def case_ids() -> list[str]:
    """Return the ids of the panel's cases."""
    return [f"{name}-{settings.suffix}" for name, settings in PANEL.items()]


def run(
    source: SuiteSource, ids: Sequence[str], accelerator: Accelerator, folder: Path, *, streams: str,
    cache: CacheRequest | None, timeout_s: float, step: OnStep, launches: int = LAUNCHES,
) -> tuple[PanelRun, list[str]]:  # fmt: skip
    """Build each case once, or take it from the cache, let `launches` fresh workers measure all, and return that.

    The second value has a line for each case that is left out: it can't run here, failed, or was disturbed. Raises
    TrtgateError where none is left.
    """
    suite = source.load().cases
    run_folder, left_out, measured = RunFolder(folder), [], {}
    reasons = {case_id: availability.unavailable(suite[case_id].settings, accelerator) for case_id in ids}
    cases = [suite[case_id] for case_id in ids if not reasons[case_id]]
    session = Session(
        source, accelerator, run_folder.logs, launches=launches, timeout_s=timeout_s, streams=streams,
        tensorrt=any(case.settings.uses_tensorrt for case in cases),
    )  # fmt: skip
    left_out += [explained(f"{name}: {why}", Explanation.UNAVAILABLE) for name, why in reasons.items() if why]
    try:
        with session:
            built = selfcheck_builds.built(
                Side(name="candidate", source=source, streams=streams), cases, accelerator, run_folder, cache=cache,
                timeout_s=timeout_s, imported=session.start, step=step,
            )  # fmt: skip
            for case_id, one in built.items():
                found = _measured(session, one, step)
                if isinstance(found, str):
                    left_out.append(found)
                else:
                    measured[case_id] = found
    finally:
        run_folder.close()
    if not measured:
        raise TrtgateError(f"nothing of the panel could be measured: {'; '.join(map(bare, left_out))}")
    return run_of(measured, accelerator), left_out


def _measured(session: Session, built: Prebuilt, step: OnStep) -> CaseMeasurement | str:
    """Return what is measured of a case, or why it has no figures."""
    case_id = built.case_id
    if problem := selfcheck_builds.problem_of(built):
        return problem
    try:
        found = session.measure(case_id, built.artifact, lambda text: step(f"{case_id}: {text}"))
    except LaunchError as error:
        return explained(f"{case_id}: {str(error).removeprefix(f'{case_id}: ')}", Explanation.BUILD_FAILED)
    void = measurement_summary.void_problem(found)
    return explained(f"{case_id}: {void}", Explanation.VOID_BLOCKS) if void else found


def run_of(measured: Mapping[str, CaseMeasurement], accelerator: Accelerator) -> PanelRun:
    """Return measurements as a line of the file has them."""
    cases = {}
    for case_id, measurement in measured.items():
        logs = verdict.log_launch_means(measurement.samples(measurement.primary))
        cases[case_id] = PanelCase(
            clock=measurement.clock,
            launches_us=[float(f"{us:.{DIGITS}g}") for us in np.exp(logs)],
            spread=float(f"{_sd(logs):.3g}"),
        )
    return PanelRun(
        recorded=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        key=accelerator.key,
        uuid=accelerator.uuid,
        versions=accelerator.versions,
        cases=cases,
    )


# What follows from it


def sd_interval(sd: float, dof: int) -> tuple[float, float]:
    """Return the interval of a standard deviation at CONFIDENCE, from `dof` degrees of freedom, at least 1.

    By the chi-squared distribution of the variance of normal values (Hahn and Meeker, Statistical Intervals, ch. 4).
    """
    above, below = (float(stats.chi2.ppf((1 + sign * CONFIDENCE) / 2, dof)) for sign in (1, -1))
    return sd * math.sqrt(dof / above), sd * math.sqrt(dof / below)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One case of the newest run beside earlier ones of its clock and versions; changes are fractions, None of none."""

    case_id: str
    clock: str
    latency_us: float
    launches: int
    spread: float
    interval: tuple[float, float] | None
    runs: int
    """Earlier runs of this card."""
    of_card: float | None
    """How far the newest run lies from their mean."""
    cards: int
    """Other cards of the key."""
    of_cards: float | None
    """How far it lies from their mean, in which each card counts once."""
    other: int
    """Earlier runs of the key that had another clock or other versions."""


def rows(runs: Sequence[PanelRun]) -> list[Row]:
    """Return what the newest run of a file says of each case; an empty list of an empty file."""
    return [_row(case_id, runs) for case_id in runs[-1].cases] if runs else []


def _row(case_id: str, runs: Sequence[PanelRun]) -> Row:
    *earlier, newest = runs
    case = newest.cases[case_id]
    known = [one for one in earlier if one.key == newest.key and case_id in one.cases]
    alike = [one for one in known if (one.cases[case_id].clock, one.versions) == (case.clock, newest.versions)]
    of_cards: dict[str, list[float]] = {}
    for one in alike:
        of_cards.setdefault(one.uuid, []).append(log_mean(one.cases[case_id]))
    now, own = log_mean(case), of_cards.pop(newest.uuid, [])
    others = [float(np.mean(logs)) for logs in of_cards.values()]
    return Row(
        case_id=case_id,
        clock=case.clock,
        latency_us=math.exp(now),
        launches=len(case.launches_us),
        spread=_sd(np.log(case.launches_us)),
        interval=sd_interval(_sd(np.log(case.launches_us)), len(case.launches_us) - 1)
        if case.launches_us[1:]
        else None,
        runs=len(own),
        of_card=math.expm1(now - float(np.mean(own))) if own else None,
        cards=len(others),
        of_cards=math.expm1(now - float(np.mean(others))) if others else None,
        other=len(known) - len(alike),
    )


def log_mean(case: PanelCase) -> float:
    """Return the mean of the logarithms of the launches' means."""
    return float(np.mean(np.log(case.launches_us)))


def _sd(logs: np.ndarray) -> float:
    return float(np.std(logs, ddof=1)) if len(logs) > 1 else 0.0


def lines(file: PanelFile) -> list[Line]:
    """Return the newest run of a file as a table, beside what earlier runs say, and what of the file can't be read."""
    if not file.runs:
        return [f"{file.path}: no run of the panel", *_problems(file)]
    newest, found = file.runs[-1], rows(file.runs)
    table: list[Sequence[str]] = [
        ("case", "latency", "between launches", "95 % interval", "this card before", "other cards", "clock")
    ]
    table += [_cells(row) for row in found]
    versions = ", ".join(f"{name} {version}" for name, version in newest.versions.items())
    said: list[Line] = [
        f"{file.path}: the run of {newest.recorded} on {newest.uuid or newest.key}: {versions}",
        TextTable(table),
    ]
    left_out = max(row.other for row in found) if found else 0
    if left_out:
        said.append(f"not compared with {number_of(left_out, 'earlier run')} of another clock or other versions")
    return said + _problems(file)


def _problems(file: PanelFile) -> list[str]:
    """Return the first lines of a file that are none of a panel, and how many more there are."""
    more = len(file.problems) - MOST_PROBLEMS
    others = [f"{file.path}: no run of the panel in {number_of(more, 'more line')}"] * (more > 0)
    return file.problems[:MOST_PROBLEMS] + others


def _cells(row: Row) -> Sequence[str]:
    return (
        row.case_id,
        duration(row.latency_us),
        f"{row.spread:.3%} of {row.launches}" if row.launches > 1 else "one launch",
        "" if row.interval is None else f"{row.interval[0]:.3%} to {row.interval[1]:.3%}",
        _apart(row.of_card, row.runs, "run"),
        _apart(row.of_cards, row.cards, "card"),
        row.clock,
    )


def _apart(change: float | None, count: int, what: str) -> str:
    return "none" if change is None else f"{change:+.2%} of {number_of(count, what)}"
