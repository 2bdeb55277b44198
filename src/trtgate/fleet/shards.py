"""Which cases a shard takes: the same answer on every machine that knows the same cases and durations."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping

import msgspec

from ..common.errors import TrtgateError

CASE, MODEL = "case", "model"
BY = (CASE, MODEL)
"""What stays together: nothing but a case, or all cases of a model."""
MOST = 10_000
"""Shards of a run, at most."""


class Part(msgspec.Struct, frozen=True):
    """One of the shards of a run, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse(text: str) -> Part:
    """Return the shard that is written `2/8`. Raises TrtgateError for what is none."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
    if found is None:
        raise TrtgateError(f"--trtgate-shard {text!r}: write NUMBER/COUNT, such as 2/8")
    number, count = map(int, found.groups())
    if not 1 <= number <= count:
        raise TrtgateError(f"--trtgate-shard {text}: shards of {count} are 1/{count} to {count}/{count}")
    if count > MOST:
        raise TrtgateError(f"--trtgate-shard {text}: a run has {MOST} shards at most")
    return Part(number, count)


def assigned(groups: Mapping[str, str], seconds: Mapping[str, float | None], count: int) -> list[list[str]]:
    """Return the cases of each shard: the longest group first, each to the shard that has least to do.

    Parameters
    ----------
    groups
        Case → what it stays together with, in the order in which cases run.
    seconds
        Case → how long it took before; where that is None or unknown it counts as the median of the others.
    count
        Number of shards; some are empty where there are fewer groups.

    """
    known = [one for case in groups if (one := seconds.get(case)) is not None]
    typical = statistics.median(known) if known else 1.0
    loads: dict[str, float] = {}
    for case, group in groups.items():
        found = seconds.get(case)
        loads[group] = loads.get(group, 0.0) + (typical if found is None else found)
    busy, sizes, home = [0.0] * count, [0] * count, dict[str, int]()
    for group in sorted(loads, key=lambda name: (-loads[name], name)):
        home[group] = min(range(count), key=lambda number: (busy[number], sizes[number], number))
        busy[home[group]] += loads[group]
        sizes[home[group]] += 1
    return [[case for case, group in groups.items() if home[group] == number] for number in range(count)]
