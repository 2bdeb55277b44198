"""Which items of two sequences correspond: by keys, the specific ones first, in order as far as possible.

Keys repeat (a transformer has thousands of layers of one name), so that what matches is decided by a longest common
subsequence of everything between two items that are known to correspond.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Pair = tuple[int, int]
"""Index before, index after."""


class Key(NamedTuple, Generic[Item]):
    """What must be equal for two items to correspond."""

    of: Callable[[Item], Hashable | None]
    """None is like no other."""
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


def aligned(
    before: Sequence[Item],
    after: Sequence[Item],
    keys: Sequence[Key[Item]],
    fits: Callable[[Item, Item], bool] = lambda _, __: True,
) -> Alignment:
    """Return which items correspond by the first of `keys`, of the rest by the second, and so on.

    No pair that `fits` refuses is among them. Takes O(n + m) where few things differ, and n·m / 64 steps of a machine
    at most.
    """
    ordered: list[Pair] = []
    moved: list[Pair] = []
    for key in keys:
        free = _Free.of(before, after, key, ordered + moved)
        found = [
            (i, j)
            for gap, gap_after in gaps(ordered, len(before), len(after))
            for i, j in free.in_order(gap, gap_after)
            if fits(before[i], after[j])
        ]
        ordered = sorted(ordered + found)
        if key.anywhere:
            moved += [(i, j) for i, j in free.without(found).by_key() if fits(before[i], after[j])]
    return Alignment(ordered, moved)


def gaps(ordered: Sequence[Pair], before: int, after: int) -> Iterator[tuple[range, range]]:
    """Yield the indices between each two neighbouring pairs, and those in front and behind, where both sides have some.

    `before` and `after` are the numbers of items.
    """
    for (low, low_after), (high, high_after) in pairwise([(-1, -1), *ordered, (before, after)]):
        if high - low > 1 and high_after - low_after > 1:
            yield range(low + 1, high), range(low_after + 1, high_after)


class _Free(NamedTuple):
    """The keys of items that correspond to nothing yet, as numbers, by index."""

    before: dict[int, int]
    after: dict[int, int]

    @classmethod
    def of(cls, before: Sequence[Item], after: Sequence[Item], key: Key[Item], taken: Sequence[Pair]) -> _Free:
        numbers: dict[Hashable, int] = {}

        def numbered(items: Sequence[Item], gone: set[int]) -> dict[int, int]:
            found = ((index, key.of(item)) for index, item in enumerate(items) if index not in gone)
            return {index: numbers.setdefault(one, len(numbers)) for index, one in found if one is not None}

        return cls(numbered(before, {i for i, _ in taken}), numbered(after, {j for _, j in taken}))

    def without(self, taken: Sequence[Pair]) -> _Free:
        for before, after in taken:
            del self.before[before], self.after[after]
        return self

    def in_order(self, gap: range, gap_after: range) -> list[Pair]:
        before = [index for index in gap if index in self.before]
        after = [index for index in gap_after if index in self.after]
        common = longest_common_subsequence([self.before[i] for i in before], [self.after[j] for j in after])
        return [(before[i], after[j]) for i, j in common]

    def by_key(self) -> list[Pair]:
        waiting: defaultdict[int, deque[int]] = defaultdict(deque)
        for index, key in self.before.items():
            waiting[key].append(index)
        return [(waiting[key].popleft(), index) for index, key in self.after.items() if waiting.get(key)]


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
