"""Whether what a session stores can be: its latencies, which would make all else noise, and its card."""

from __future__ import annotations

import math
import statistics
from itertools import chain

import msgspec

from ..common.accelerator import Accelerator, slug
from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..common.metrics import METRICS
from ..common.run_places import Place
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


def check(path: Place, record: CaseRecord, claimed: Accelerator, what_to_do: str) -> None:
    """Check what a file has of a case; `claimed` is what it says that it was recorded on.

    Raises TrtgateError for a case without a session, a session without latencies, a latency that is no positive number,
    and a session of another kind of GPU.
    """
    if not record.sessions:
        raise TrtgateError(f"{path}: case {record.case} has no session; {what_to_do}")
    for session in (*record.anchor, *record.sessions):
        if not session.metrics:
            raise TrtgateError(f"{path}: case {record.case} has a session without latencies; {what_to_do}")
        for metric, launches in session.metrics.items():
            good = launches and all(
                captures and all(math.isfinite(us) and us > 0 for us in captures) for captures in launches
            )
            if not good:
                raise TrtgateError(f"{path}: case {record.case}: {metric} must be positive numbers for every launch")
        card = other_card(session, claimed)
        if card:
            said = f"{path} claims to be of {claimed.name}, and case {record.case} has a session of {session.recorded}"
            raise TrtgateError(explained(f"{said} on {card}: {what_to_do}", Explanation.WRONG_ACCELERATOR))


def other_card(session: StoredSession, claimed: Accelerator) -> str:
    """Return the GPU that a session was measured on, where it is of another kind; empty where nothing says so.

    A session from before does not know its machine.
    """
    card, capability = session.machine.get("card", ""), session.machine.get("capability", "")
    expected = "" if claimed.capability is None else ".".join(map(str, claimed.capability))
    if claimed.kind != "gpu" or not card:
        return ""
    if slug(card) != slug(claimed.name):
        return card
    return f"compute capability {capability}" if capability and expected and capability != expected else ""


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
