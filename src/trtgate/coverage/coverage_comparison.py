"""What was lost and gained between two coverages of a case, in phrases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from ..records.coverage_record import Coverage
from . import unseen_operators


class CoverageDifference(msgspec.Struct, frozen=True, kw_only=True):
    """What changed between two coverages; each entry is a phrase that names it."""

    lost: list[str]
    gained: list[str]
    other: list[str]

    def __bool__(self) -> bool:
        return bool(self.lost or self.gained or self.other)


def compare(before: Coverage, after: Coverage) -> CoverageDifference:
    """Return what was lost (operators, graphs; more engines, breaks, skipped frames), gained, and what else differs.

    Nothing is gained where a smaller share of the operators is in TensorRT than before. A coverage of nothing is lost,
    whatever it is compared with.
    """
    if not after.total:
        gone = f"{_share(before)} → {_share(after)} operators in TensorRT: {unseen_operators.nothing(after)}"
        return CoverageDifference(lost=[gone], gained=[], other=[])
    lost, gained = _operators(before, after)
    lost += _vanished(before, after)
    for worse, better in (_engines(before, after), _breaks(before, after), _skipped(before, after)):
        lost += worse
        gained += better
    if after.in_tensorrt * before.total < before.in_tensorrt * after.total:
        gained = []
    other = [] if lost or gained else _other(before, after)
    return CoverageDifference(lost=lost, gained=gained, other=other)


Phrases = tuple[list[str], list[str]]
"""What is worse, what is better."""


def _operators(before: Coverage, after: Coverage) -> Phrases:
    lost, gained = [], []
    old, new = _left_by_operator(before), _left_by_operator(after)
    for name in sorted(old.keys() | new.keys()):
        change = new[name] - old[name]
        if change > 0:
            reasons = ", ".join(sorted({entry.reason for entry in after.left if entry.operator == name}))
            lost.append(f"{name} {old[name]} → {new[name]} left to PyTorch ({reasons})")
        elif change < 0:
            gained.append(f"{name} {old[name]} → {new[name]} left to PyTorch")
    return lost, gained


def _vanished(before: Coverage, after: Coverage) -> list[str]:
    """Return what is lost with graphs that are gone. A break less joins two graphs, and none of them is gone then."""
    joined = sum(before.graph_breaks.values()) - sum(after.graph_breaks.values())
    if before.graphs - after.graphs > max(joined, 0) and after.in_tensorrt < before.in_tensorrt:
        graphs = f"graphs {before.graphs} → {after.graphs}"
        return [f"{graphs}, and with them {_share(before)} → {_share(after)} operators in TensorRT"]
    return []


def _engines(before: Coverage, after: Coverage) -> Phrases:
    """Fewer engines are better while they hold as many operators, more are worse unless they hold what was left."""
    then, now = len(before.engines), len(after.engines)
    phrase = [f"engines {then} → {now}"]
    if now > then:
        holds_more = after.in_pytorch < before.in_pytorch or not then  # 0 → 1 was wanted
        return ([], phrase) if holds_more else (phrase, [])
    return ([], phrase) if now < then and after.in_tensorrt >= before.in_tensorrt else ([], [])


def _breaks(before: Coverage, after: Coverage) -> Phrases:
    return _counted("graph breaks", before.graph_breaks, after.graph_breaks)


def _skipped(before: Coverage, after: Coverage) -> Phrases:
    return _counted("frames skipped by Dynamo", before.skipped, after.skipped)


def _counted(what: str, before: Mapping[str, int], after: Mapping[str, int]) -> Phrases:
    then, now = sum(before.values()), sum(after.values())
    phrase = f"{what} {then} → {now}"
    if now > then:
        added = sorted(reason for reason, n in after.items() if n > before.get(reason, 0))
        return [f"{phrase} ({'; '.join(added)})"], []
    return ([], [phrase]) if now < then else ([], [])


def _left_by_operator(coverage: Coverage) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in coverage.left:
        found[entry.operator] += entry.count
    return found


def _share(coverage: Coverage) -> str:
    return f"{coverage.in_tensorrt} of {coverage.total}"


def _other(before: Coverage, after: Coverage) -> list[str]:
    found = []
    if before.total != after.total:
        found.append(f"operators {before.total} → {after.total}")
    if before.in_pytorch != after.in_pytorch:
        found.append(f"{_share(before)} → {_share(after)} operators in TensorRT")
    for what, then, now in (
        ("graphs", before.graphs, after.graphs), ("engines", len(before.engines), len(after.engines)),
    ):  # fmt: skip
        if then != now:
            found.append(f"{what} {then} → {now}")
    old, new = _in_engines(before), _in_engines(after)
    changed = [
        f"{name} {old[name]} → {new[name]}" for name in sorted(old.keys() | new.keys()) if old[name] != new[name]
    ]
    if changed:
        found.append(f"in engines: {', '.join(changed)}")
    if not found and _without_sources(before) != _without_sources(after):
        found.append("shapes, reasons or the sizes of blocks differ")
    return found


def _in_engines(coverage: Coverage) -> Counter[str]:
    found: Counter[str] = Counter()
    for engine in coverage.engines:
        found.update(engine.operators)
    return found


def _without_sources(coverage: Coverage) -> Coverage:
    """Return it without lines of source, which every edit moves."""
    left = [msgspec.structs.replace(entry, sources={}) for entry in coverage.left]
    return msgspec.structs.replace(coverage, left=left)
