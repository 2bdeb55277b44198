"""Whether what a session stores can be latencies: one that can't would make all that it is compared with noise."""

from __future__ import annotations

import statistics
from itertools import chain

import msgspec

from ..common.metrics import METRICS
from .baseline_record import CaseRecord, StoredSession

SHORTEST_US, LONGEST_US = 1e-3, 1e11
"""A nanosecond, and more than a day: nothing that is called takes less or more."""
MOST_APART = 1000.0
"""So many times may one latency of a session be as long or as short as their median; not even launches that fall into
groups lie as far apart."""


def absurd(session: StoredSession) -> str:
    """Return what of a session's latencies, which are positive, can't be; empty when all can."""
    for metric, launches in session.metrics.items():
        in_us = 1e6 if metric in METRICS and METRICS[metric].unit == "s" else 1.0
        latencies_us = [value * in_us for value in chain.from_iterable(launches)]
        for us in latencies_us:
            if not SHORTEST_US <= us <= LONGEST_US:
                return f"no {metric} latency is {us:.3g} µs"
        middle = statistics.median_low(latencies_us)
        for us in latencies_us:
            if max(us / middle, middle / us) > MOST_APART:
                return f"a {metric} latency of {us:.3g} µs lies beside others of {middle:.3g} µs"
    return ""


def usable(record: CaseRecord) -> CaseRecord:
    """Return a record whose sessions can be used: those that can't are among its unused ones."""
    unused = [one for one in (*record.anchor, *record.sessions) if absurd(one)]
    if not unused:
        return record
    anchor, sessions = ([one for one in some if one not in unused] for some in (record.anchor, record.sessions))
    return msgspec.structs.replace(record, anchor=anchor, sessions=sessions, unused=[*record.unused, *unused])


def why_unused(session: StoredSession) -> str:
    """Return in a line why a session is among the unused ones."""
    return f"the session of {session.recorded} is not used: {absurd(session) or 'it could not be, when it was stored'}"
