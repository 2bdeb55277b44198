"""Changes of many cases, told as what they are: one event where they lie between the same two runs or commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from .history import CaseHistory, HistoryPoint, Series

ALARM_P = 0.01
"""How often a drift is reported where none is, in all series that were asked for together."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """One series that changed in an event, as a fraction of the level before."""

    accelerator: str
    case_id: str
    card: str
    change: float


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What changed between the last run before and the first run after, the worst first."""

    before: HistoryPoint
    after: HistoryPoint
    changed: list[Changed]

    @property
    def case_ids(self) -> list[str]:
        """The cases that changed, each once."""
        return list(dict.fromkeys(one.case_id for one in self.changed))


def events(histories: Mapping[str, Sequence[CaseHistory]]) -> list[Event]:
    """Return the steps of all cases by accelerator, those between the same commits together; the widest event first.

    A tree with changes is no commit. Where git knew no commit, or the same one, those between the same runs are.
    """
    ranges: dict[tuple[str, str], tuple[HistoryPoint, HistoryPoint]] = {}
    found: dict[tuple[str, str], list[Changed]] = {}
    for accelerator, case_id, series, _ in _all_series(histories):
        for step in series.steps:
            before, after = series.points[step.first - 1], series.points[step.first]
            place = _place(before, after)
            ranges.setdefault(place, (before, after))
            change = step.after_us / step.before_us - 1
            found.setdefault(place, []).append(
                Changed(accelerator=accelerator, case_id=case_id, card=series.card, change=change)
            )
    made = [
        Event(before=ranges[place][0], after=ranges[place][1], changed=sorted(some, key=lambda one: -one.change))
        for place, some in found.items()
    ]
    return sorted(made, key=lambda event: (-len(event.case_ids), -event.changed[0].change))


def _place(before: HistoryPoint, after: HistoryPoint) -> tuple[str, str]:
    commits = tuple("" if point.dirty else point.commit for point in (before, after))
    if all(commits) and commits[0] != commits[1]:
        return commits[0], commits[1]
    return before.run, after.run


def drifting(histories: Mapping[str, Sequence[CaseHistory]]) -> list[Changed]:
    """Return the series that get slower bit by bit up to their newest run, by the slope's interval; worst first.

    Of a case's clocks the newest one alone counts. ALARM_P is shared by all series (Bonferroni).
    """
    current = [
        (accelerator, case_id, series)
        for accelerator, case_id, series, newest in _all_series(histories)
        if (series.metric, series.clock) == (newest.metric, newest.clock)
    ]
    found = [
        Changed(accelerator=accelerator, case_id=case_id, card=series.card, change=series.drift.change)
        for accelerator, case_id, series in current
        if series.drift is not None and series.drift.low > 0 and series.drift.p * len(current) <= ALARM_P
    ]
    return sorted(found, key=lambda one: -one.change)


def total_change(series: Series) -> float:
    """Return how much slower a series is now than at its beginning by the steps and the drift found, a fraction."""
    total = 1.0
    for step in series.steps:
        total *= step.after_us / step.before_us
    if series.drift is not None:
        total *= 1 + series.drift.change
    return total - 1


def _all_series(histories: Mapping[str, Sequence[CaseHistory]]) -> Iterable[tuple[str, str, Series, Series]]:
    """Return accelerator, case, series, and the case's series with the newest run."""
    for accelerator, cases in histories.items():
        for case in cases:
            for series in case.series:
                yield accelerator, case.case_id, series, case.series[0]
