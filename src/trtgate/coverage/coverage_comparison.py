"""What was lost and gained between two coverages of a case, in phrases."""

from __future__ import annotations

from collections import Counter

import msgspec

from ..records.coverage_record import Coverage


class CoverageDifference(msgspec.Struct, frozen=True, kw_only=True):
    """What changed between two coverages; each entry is a phrase that names it."""

    lost: list[str]
    gained: list[str]
    other: list[str]

    def __bool__(self) -> bool:
        return bool(self.lost or self.gained or self.other)


def compare(before: Coverage, after: Coverage) -> CoverageDifference:
    """Return what was lost (operators, more engines, more graph breaks), gained, and what else is not the same."""
    lost, gained = [], []
    old, new = _left_by_operator(before), _left_by_operator(after)
    for name in sorted(old.keys() | new.keys()):
        change = new[name] - old[name]
        if change > 0:
            reasons = ", ".join(sorted({entry.reason for entry in after.left if entry.operator == name}))
            lost.append(f"{name} {old[name]} → {new[name]} left to PyTorch ({reasons})")
        elif change < 0:
            gained.append(f"{name} {old[name]} → {new[name]} left to PyTorch")
    then, now = len(before.engines), len(after.engines)
    if now != then:
        more_in_engines = after.in_pytorch < before.in_pytorch  # then more of them are no loss: 0 → 1 was wanted
        (gained if now < then or more_in_engines else lost).append(f"engines {then} → {now}")
    then, now = sum(before.graph_breaks.values()), sum(after.graph_breaks.values())
    if now > then:
        lost.append(f"graph breaks {then} → {now}{_added_breaks(before, after)}")
    elif now < then:
        gained.append(f"graph breaks {then} → {now}")
    other = [] if lost or gained else _other(before, after)
    return CoverageDifference(lost=lost, gained=gained, other=other)


def _left_by_operator(coverage: Coverage) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in coverage.left:
        found[entry.operator] += entry.count
    return found


def _added_breaks(before: Coverage, after: Coverage) -> str:
    added = sorted(reason for reason, n in after.graph_breaks.items() if n > before.graph_breaks.get(reason, 0))
    return f" ({'; '.join(added)})" if added else ""


def _other(before: Coverage, after: Coverage) -> list[str]:
    found = []
    if before.total != after.total:
        found.append(f"operators {before.total} → {after.total}")
    if before.graphs != after.graphs:
        found.append(f"graphs {before.graphs} → {after.graphs}")
    old, new = _in_engines(before), _in_engines(after)
    changed = [
        f"{name} {old[name]} → {new[name]}" for name in sorted(old.keys() | new.keys()) if old[name] != new[name]
    ]
    if changed:
        found.append(f"in engines: {', '.join(changed)}")
    if not found and before != after:
        found.append("shapes, reasons or the sizes of blocks differ")
    return found


def _in_engines(coverage: Coverage) -> Counter[str]:
    found: Counter[str] = Counter()
    for engine in coverage.engines:
        found.update(engine.operators)
    return found
