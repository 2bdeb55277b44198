"""What `trtgate history` does: say how cases fared over the saved runs. Needs neither a GPU nor torch."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..common import accelerator, run_places
from ..common.errors import TrtgateError
from ..common.escaping import encodable, printable
from ..common.files import write_json
from ..common.metrics import METRICS
from ..common.run_folder import RUNS, known
from ..common.run_places import Folder
from ..common.text_columns import first_few
from ..gate import history
from ..gate.history import CaseHistory, Drift, HistoryPoint, LevelShift, SavedRun, Series
from ..gate.sentences import duration
from ..suite.pytest_config import find_configuration, runs_folder
from ..verdict import rises

BLOCKS = "▁▂▃▄▅▆▇█"
LONGEST = 1000
"""Characters of a line; names of others may be longer."""
LEAST_SPAN = 0.02
"""A sparkline's height is at least this share of the latency: noise is not to look like mountains."""


class Histories(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, of one accelerator, and what of the folder could not be read."""

    key: str
    cases: list[CaseHistory]
    skipped: list[str]


# Find


def folder_of(option: str | None) -> Folder:
    """Return where the saved runs are: as asked for, else where they are kept for good, else below the configuration.

    Raises TrtgateError for a URL of no use.
    """
    if option is not None:
        return run_places.at(option)
    if (kept := runs_folder()) is not None:
        return kept
    found = find_configuration(Path.cwd())
    root = Path.cwd() if found is None else found.path.parent
    return Path(os.path.relpath(known(root / ".trtgate") / RUNS))


def find(names: Sequence[str], folder: Folder, key: str) -> Histories:
    """Return the histories of cases, whose names may be patterns, on an accelerator (empty: this machine's).

    Raises TrtgateError when there is no such run or case, or Apache Otava is needed and not installed.
    """
    key = key or accelerator.detect().key
    runs, skipped = history.read_runs(folder, lambda case_id: any(_takes(name, case_id) for name in names), key)
    others = [] if runs else run_places.keys_in(folder)
    if others and key not in others:
        raise TrtgateError(f"no run under {folder} is of {key}; name one with --accelerator: {_listed(others)}")
    if not runs:
        read = f"; {len(skipped)} could not be read, the first: {printable(skipped[0])}" if skipped else ""
        raise TrtgateError(f"there are no saved runs under {folder}: every run of the gate saves one there{read}")
    ours = [run for run in runs if run.key == key]
    if not ours:
        known = sorted({run.key for run in runs})
        raise TrtgateError(f"no run under {folder} is of {key}; name one with --accelerator: {_listed(known)}")
    cases = [history.collect(ours, case_id) for case_id in _chosen(names, ours, folder)]
    return Histories(key=key, cases=cases, skipped=skipped)


def _listed(keys: Sequence[str]) -> str:
    return printable(", ".join(keys), LONGEST)


def _takes(name: str, case_id: str) -> bool:
    return case_id == name or fnmatch.fnmatchcase(case_id, name)


def _chosen(names: Sequence[str], runs: Sequence[SavedRun], folder: Folder) -> list[str]:
    known = sorted({case_id for run in runs for case_id in run.case_ids})
    chosen = set()
    for name in names:
        taken = [case_id for case_id in known if _takes(name, case_id)]
        if not taken:
            close = difflib.get_close_matches(name, known, n=1)
            said = f"did you mean {close[0]!r}?" if close else f"there are: {printable(first_few(known, 5))}"
            raise TrtgateError(f"no run under {folder} has a case {name!r}; {said}")
        chosen.update(taken)
    return sorted(chosen)


def save(found: Histories, path: Path) -> None:
    """Write everything that was found. Raises TrtgateError when it can't be written."""
    write_json(path, msgspec.to_builtins(found))


# Say


def lines(found: Histories, encoding: str | None) -> list[str]:
    """Return the histories as lines in which nothing is left that a terminal would obey or can't show."""
    said = [f"saved runs of {found.key}"]
    for case in found.cases:
        said += ["", case.case_id, *(f"  {line}" for line in _about(case))]
    said += [""] * bool(found.skipped) + [f"skipped: {problem}" for problem in found.skipped]
    return [encodable(printable(line, LONGEST), encoding or "ascii") for line in said]


def sparkline(values: Sequence[float]) -> str:
    """Return a block for each value; the lowest is the least of them."""
    least = min(values)
    span = max(max(values) - least, least * LEAST_SPAN)
    return "".join(BLOCKS[round((value - least) / span * (len(BLOCKS) - 1))] for value in values)


def _about(case: CaseHistory) -> list[str]:
    said = []
    for number, series in enumerate(case.series):
        if number:
            said.append("measured otherwise, and never compared with the above:")
        said += _about_series(series)
    if not case.series:
        said.append("no run to show")
    left_out = [(case.beside_base, "made beside a base (trtgate ab)"), (case.disturbed, "disturbed")]
    if any(count for count, _ in left_out):
        said.append("left out: " + ", ".join(f"{count} {why}" for count, why in left_out if count))
    return said


def _about_series(series: Series) -> list[str]:
    points = series.points
    values = [point.latency_us for point in points]
    metric = METRICS[series.metric].title if series.metric in METRICS else series.metric
    said = [
        f"{metric}, clock {series.clock}, {len(points)} run{'s' * (len(points) > 1)}, "
        + " to ".join(dict.fromkeys(_date(point) for point in (points[0], points[-1]))),
        f"{sparkline(values)}  first {duration(values[0])}, last {duration(values[-1])} ({points[-1].verdict}), "
        f"min {duration(min(values))}, max {duration(max(values))}",
    ]
    said += [_stepped(step, points) for step in series.steps]
    if series.drift is not None:
        said.append(_drifted(series.drift, points))
    if len(points) < history.LEAST_RUNS:
        said.append(f"too few runs to look for changes: it takes {history.LEAST_RUNS}")
    elif not series.steps and series.drift is None:
        said.append(_drifting(values) or "no change found")
    return said


def _drifting(values: Sequence[float]) -> str:
    if not rises(values):
        return ""
    return f"drifting: {len(values)} runs get slower one after the other, {values[-1] / values[0] - 1:+.2%} in all"


def _stepped(step: LevelShift, points: Sequence[HistoryPoint]) -> str:
    return (
        f"between {_named(points[step.first - 1])} and {_named(points[step.first])}: {duration(step.before_us)} → "
        f"{duration(step.after_us)}, {step.after_us / step.before_us - 1:+.2%}"
    )


def _drifted(drift: Drift, points: Sequence[HistoryPoint]) -> str:
    return (
        f"drifted by {drift.change:+.2%} ({drift.low:+.2%} to {drift.high:+.2%}) over the last {drift.runs} runs, "
        f"from {_named(points[drift.first])}"
    )


def _named(point: HistoryPoint) -> str:
    commit = point.commit[:9] + " with changes" * point.dirty if point.commit else "no commit"
    branch = f" on {point.branch}" if point.branch else ""
    return f"{point.run} ({commit}{branch}, {_date(point)})"


def _date(point: HistoryPoint) -> str:
    return point.recorded[:10]
