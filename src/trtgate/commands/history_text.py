"""What `trtgate history` says of cases. Needs neither a GPU nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..common.errors import TrtgateError
from ..common.escaping import encodable, printable
from ..common.files import write_whole
from ..common.metrics import METRICS
from ..common.text_columns import first_few, number_of
from ..gate.history import CaseHistory, HistoryPoint, Series
from ..gate.history_events import Changed, Event
from ..gate.level_changes import LEAST_RUNS, Drift, LevelShift
from ..gate.run_compacting import Compacted
from ..gate.sentences import duration
from ..report import fleet_page
from ..verdict import rises
from .history_answers import Found

BLOCKS = "▁▂▃▄▅▆▇█"
LONGEST = 1000
"""Characters of a line; names of others may be longer."""
LEAST_SPAN = 0.02
"""A sparkline's height is at least this share of the latency: noise is not to look like mountains."""
MOST_BLOCKS = 60
"""Of a sparkline."""
MOST_NAMED = 5
"""Cases of an event that are named."""


def lines(found: Found, encoding: str | None) -> list[str]:
    """Return the histories as lines in which nothing is left that a terminal would obey or can't show."""
    said: list[str] = []
    for key, cases in found.histories.items():
        said += [""] * bool(said) + [f"saved runs of {key}"]
        for case in cases:
            said += ["", case.case_id, *(f"  {line}" for line in about(case))]
    wide = [event for event in found.events if len(event.case_ids) > 1]
    said += [""] * bool(wide) + [_event(event) for event in wide]
    said += [""] * bool(found.skipped) + [f"skipped: {problem}" for problem in found.skipped]
    return [encodable(printable(line, LONGEST), encoding or "ascii") for line in said]


def alarm(drifting: Sequence[Changed]) -> str:
    """Return one line that names what gets slower bit by bit."""
    named = [
        f"{one.case_id} by {one.change:+.2%} on {one.accelerator}" + f", card {one.card}" * bool(one.card)
        for one in drifting
    ]
    return printable(
        f"{len(drifting)} {'series get' if len(drifting) > 1 else 'series gets'} slower bit by bit: "
        f"{first_few(named, MOST_NAMED)}",
        LONGEST,
    )


def sparkline(values: Sequence[float]) -> str:
    """Return a block for each value, or for so many that MOST_BLOCKS suffice, of which the slowest shows.

    The lowest block is the least value.
    """
    least = min(values)
    span = max(max(values) - least, least * LEAST_SPAN)
    count = min(len(values), MOST_BLOCKS)
    bounds = [len(values) * number // count for number in range(count + 1)]
    shown = [max(values[start:end]) for start, end in pairwise(bounds)]
    return "".join(BLOCKS[round((value - least) / span * (len(BLOCKS) - 1))] for value in shown)


def about(case: CaseHistory) -> list[str]:
    """Return what is to be said of a case on an accelerator: its series, the newest first, by clock and by card."""
    said: list[str] = []
    several = len({series.card for series in case.series}) > 1
    shown = [one for one in case.series if not several or len(one.points) >= LEAST_RUNS] or case.series[:1]
    before: Series | None = None
    for series in shown:
        if before is not None:
            other = (series.metric, series.clock) != (before.metric, before.clock)
            said.append(f"{'measured otherwise' if other else 'another card'}, and never compared with the above:")
        said += _about_series(series, several=several)
        before = series
    few = [one for one in case.series if one not in shown]
    if few:
        cards = len({one.card for one in few})
        said.append(f"{number_of(cards, 'more card')} with fewer than {LEAST_RUNS} runs: too few to look for changes")
    if not case.series:
        said.append("no run to show")
    left_out = [(case.beside_base, "made beside a base (trtgate ab)"), (case.disturbed, "disturbed")]
    if any(count for count, _ in left_out):
        said.append("left out: " + ", ".join(f"{count} {why}" for count, why in left_out if count))
    return said


def _about_series(series: Series, *, several: bool) -> list[str]:
    points, card = series.points, f", card {series.card}" * several
    values = [point.latency_us for point in points]
    metric = METRICS[series.metric].title if series.metric in METRICS else series.metric
    said = [
        f"{metric}, clock {series.clock}{card}, {number_of(len(points), 'run')}, "
        + " to ".join(dict.fromkeys(_date(point) for point in (points[0], points[-1]))),
        f"{sparkline(values)}  first {duration(values[0])}, last {duration(values[-1])} ({points[-1].verdict}), "
        f"min {duration(min(values))}, max {duration(max(values))}",
    ]
    said += [_stepped(step, points) for step in series.steps]
    if series.drift is not None:
        said.append(_drifted(series.drift, points))
    if len(points) < LEAST_RUNS:
        said.append(f"too few runs to look for changes: it takes {LEAST_RUNS}")
    elif not series.steps and series.drift is None:
        said.append(_drifting(values) or "no change found")
    return said


def _drifting(values: Sequence[float]) -> str:
    if not rises(values):
        return ""
    return f"drifting: {len(values)} runs get slower one after the other, {values[-1] / values[0] - 1:+.2%} in all"


def _event(event: Event) -> str:
    changes = [one.change for one in event.changed]
    size = f"{min(changes):+.2%} to {max(changes):+.2%}" if len(changes) > 1 else f"{changes[0]:+.2%}"
    return (
        f"one event, {number_of(len(event.case_ids), 'case')} between {_named(event.before)} and "
        f"{_named(event.after)}: {size}: {first_few(event.case_ids, MOST_NAMED)}"
    )


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


def about_compacted(done: Compacted) -> list[str]:
    """Say what compacting came to."""
    said = f"{number_of(done.runs, 'run')} compacted" if done.runs else "no run that is not compacted"
    if done.runs:
        merged = f", with those of {number_of(done.merged, 'file')} before" * bool(done.merged)
        said += f": {number_of(done.rows, 'row')}{merged}, {done.bytes / 2**20:.2f} MiB"
    return [said, *(printable(f"skipped: {problem}", LONGEST) for problem in done.problems)]


def save_page(found: Found, path: Path) -> None:
    """Write the page of a fleet. Raises TrtgateError where it can't be made or written."""
    rows = [
        fleet_page.Row(key=key, case=case, lines=about(case))
        for key, cases in found.histories.items()
        for case in cases
    ]
    try:
        write_whole(path, fleet_page.render(rows, [_event(event) for event in found.events]).encode())
    except OSError as error:
        raise TrtgateError(f"{path} can't be written: {error.strerror}") from error
