"""Which items of two sequences correspond: by keys, the specific ones first, in order as far as possible.

Keys repeat (a transformer has thousands of layers of one name), so that what matches is decided by a longest common
subsequence of everything between two items that are known to correspond.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

Pair = tuple[int, int]
"""Index before, index after."""


class Level(NamedTuple):
    """One key for every item on either side; None is like no other. Levels go from specific keys to general ones."""

    before: Sequence[Hashable | None]
    after: Sequence[Hashable | None]
    anywhere: bool
    """Whether equal keys correspond even where the order differs; else between corresponding neighbours only."""


class Alignment(NamedTuple):
    """Which items correspond; every index is in at most one pair."""

    ordered: list[Pair]
    """Ascending on both sides."""
    moved: list[Pair]
    """Out of order with the others."""

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, in the order of what came after."""
        return sorted(self.ordered + self.moved, key=lambda pair: pair[1])


def aligned(levels: Sequence[Level], fits: Callable[[int, int], bool] = lambda _, __: True) -> Alignment:
    """Return which items correspond; no pair that `fits` refuses (index before, index after) is among them.

    All levels are of the same items. Takes O(n + m) where few things differ, and n·m / 64 steps of a machine at most.
    """
    ordered: list[Pair] = []
    moved: list[Pair] = []
    for level in levels:
        free = _Free.of(level, ordered + moved)
        found = [
            pair
            for gap_before, gap_after in gaps(ordered, len(level.before), len(level.after))
            for pair in free.in_order(gap_before, gap_after)
            if fits(*pair)
        ]
        ordered = sorted(ordered + found)
        if level.anywhere:
            moved += [pair for pair in free.without(found).by_key() if fits(*pair)]
    return Alignment(ordered, moved)


def gaps(ordered: Sequence[Pair], before: int, after: int) -> Iterator[tuple[range, range]]:
    """Yield the indices between each two neighbouring pairs, and those in front and behind, empty ones too."""
    for (low, low_after), (high, high_after) in pairwise([(-1, -1), *ordered, (before, after)]):
        yield range(low + 1, high), range(low_after + 1, high_after)


class _Free(NamedTuple):
    """The keys of items that correspond to nothing yet, as numbers; -1 for all others."""

    before: list[int]
    after: list[int]

    @classmethod
    def of(cls, level: Level, taken: Sequence[Pair]) -> _Free:
        numbers: dict[Hashable, int] = {}
        before, after = (
            [-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys]
            for keys in (level.before, level.after)
        )
        return cls(before, after).without(taken)

    def without(self, taken: Sequence[Pair]) -> _Free:
        for before, after in taken:
            self.before[before] = self.after[after] = -1
        return self

    def in_order(self, gap_before: range, gap_after: range) -> list[Pair]:
        if not gap_before or not gap_after:
            return []
        before = [index for index in gap_before if self.before[index] >= 0]
        after = [index for index in gap_after if self.after[index] >= 0]
        common = longest_common_subsequence([self.before[i] for i in before], [self.after[i] for i in after])
        return [(before[i], after[j]) for i, j in common]

    def by_key(self) -> list[Pair]:
        waiting: defaultdict[int, deque[int]] = defaultdict(deque)
        for index, key in enumerate(self.before):
            waiting[key].append(index)
        return [
            (waiting[key].popleft(), index)
            for index, key in enumerate(self.after)
            if key >= 0 and waiting.get(key)
        ]  # fmt: skip


def longest_common_subsequence(before: Sequence[int], after: Sequence[int]) -> list[Pair]:
    """Return the pairs of indices, ascending, of a longest common subsequence."""
    start, shorter = 0, min(len(before), len(after))
    while start < shorter and before[start] == after[start]:
        start += 1
    end = 0
    while end < shorter - start and before[-1 - end] == after[-1 - end]:
        end += 1
    head = [(index, index) for index in range(start)]
    tail = [(len(before) - index, len(after) - index) for index in range(end, 0, -1)]
    common = set(before[start : len(before) - end]) & set(after[start : len(after) - end])
    old = [index for index in range(start, len(before) - end) if before[index] in common]
    new = [index for index in range(start, len(after) - end) if after[index] in common]
    middle = _subsequence([before[index] for index in old], [after[index] for index in new])
    return head + [(old[i], new[j]) for i, j in middle] + tail


def _subsequence(before: Sequence[int], after: Sequence[int]) -> list[Pair]:
    """Do so with a row of the table as one long integer: bit i of row j is 0 where before[i] makes it one longer.

    H. Hyyrö, Bit-parallel LCS-length computation revisited (2004): V' = (V + (V & M)) | (V & ~M). Two sequences of
    5,000 take some 10 ms whatever they hold, in n·m bits of memory.
    """
    where: defaultdict[int, int] = defaultdict(int)
    for index, key in enumerate(before):
        where[key] |= 1 << index
    ones = (1 << len(before)) - 1
    row, rows = ones, [ones]
    for key in after:
        same = row & where[key]
        row = ((row + same) | (row - same)) & ones
        rows.append(row)
    pairs = []
    i, j = len(before) - 1, len(after)
    while i >= 0 and j:
        if rows[j] >> i & 1:
            i -= 1
        elif not rows[j - 1] >> i & 1:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i + 1, j))
    return pairs[::-1]
