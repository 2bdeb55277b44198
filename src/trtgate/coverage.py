"""Operator coverage: what Torch-TensorRT takes of a graph, in which engines, and why the rest stays in PyTorch.

Pure: it counts what `torch_trt.partition` saw, compares two counts and says what differs. It imports no torch.

Everything is counted from the graphs themselves, as multisets of operators: the lowered graph, less what the
partitioner put into engines, is what stays in PyTorch, whatever upstream's report lists.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

FRONTENDS = ("dynamo", "torch_compile")
"""The ways into the partitioner that can be asked without a GPU."""

NO_CONVERTER = "no converter"
REFUSED = "validator refused"
EXCLUDED = "excluded by torch_executed_ops"
COMPLEX = "complex tensors"
DYNAMIC = "its converter takes no dynamic shapes"
DATA_DEPENDENT = "data-dependent shape, kept in PyTorch by fallback_data_dependent_ops"
PARTITIONER = "left out by the partitioner"


def too_small(min_block_size: int) -> str:
    """Return the reason of operators whose engine would be smaller than `min_block_size`."""
    return f"engine smaller than min_block_size {min_block_size}"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Operators that would be one engine at `min_block_size=1`; `size` is what the partitioner compares."""

    size: int
    operators: dict[str, int]


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """One TensorRT engine: operator → count, and its tensors, such as `float16[1,3,224,224]`."""

    operators: dict[str, int]
    inputs: list[str]
    outputs: list[str]

    @property
    def size(self) -> int:
        """How many operators it holds."""
        return sum(self.operators.values())


class Graph(msgspec.Struct, kw_only=True):
    """One lowered graph as the partitioner saw it."""

    operators: dict[str, int]
    unsupported: dict[str, dict[str, int]]
    """Reason → operator → count, of operators that no engine can hold."""
    min_block_size: int
    engines: list[Engine] = []
    blocks: list[Block] = []


class Left(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Operators of one kind that stay in PyTorch for one reason."""

    operator: str
    reason: str
    count: int


class BlockSize(msgspec.Struct, frozen=True, kw_only=True):
    """What every `min_block_size` up to this one gives, down to the next smaller one of the table."""

    min_block_size: int
    engines: int
    operators: int
    """In TensorRT."""


class Coverage(msgspec.Struct, kw_only=True):
    """What Torch-TensorRT takes of a model under one setting.

    `total` operators are the lowered graph's calls, `getitem` included; `supported` of them have a converter that
    accepts them; `in_tensorrt` are in `engines`, `in_pytorch` are not.
    """

    min_block_size: int
    total: int
    supported: int
    in_tensorrt: int
    in_pytorch: int
    left: list[Left]
    """Everything that stays in PyTorch, by operator and reason."""
    engines: list[Engine]
    block_sizes: list[BlockSize]
    graphs: int = 1
    """How many graphs torch.compile made; one for an exported program."""
    graph_breaks: dict[str, int] = {}
    """Reason → count."""

    @property
    def average_size(self) -> float:
        """Operators per engine; 0 without engines."""
        return self.in_tensorrt / len(self.engines) if self.engines else 0.0

    @property
    def most(self) -> int:
        """Operators of the largest engine."""
        return max((engine.size for engine in self.engines), default=0)

    @property
    def recommended(self) -> list[int]:
        """`min_block_size` for the fewest engines, and for a moderate number of them where that is another one.

        The dry run's rule (torch_tensorrt.dynamo._DryRunTracker): the largest engine's operators, and the
        average rounded up; of the engines at `min_block_size=1`, so that they do not depend on the size asked for.
        """
        if not self.block_sizes:
            return []
        finest = self.block_sizes[0]
        sizes = {self.block_sizes[-1].min_block_size, math.ceil(finest.operators / finest.engines)}
        return sorted(sizes, reverse=True)


def count(graphs: Iterable[Graph], graph_breaks: Mapping[str, int] | None = None) -> Coverage:
    """Count the graphs of one model."""
    graphs = list(graphs)
    left: Counter[tuple[str, str]] = Counter()
    for graph in graphs:
        left.update(_left(graph))
    total = sum(sum(graph.operators.values()) for graph in graphs)
    unsupported = sum(sum(kinds.values()) for graph in graphs for kinds in graph.unsupported.values())
    engines = [engine for graph in graphs for engine in graph.engines]
    in_tensorrt = sum(engine.size for engine in engines)
    return Coverage(
        min_block_size=graphs[0].min_block_size if graphs else 1,
        total=total,
        supported=total - unsupported,
        in_tensorrt=in_tensorrt,
        in_pytorch=total - in_tensorrt,
        left=sorted(Left(operator=name, reason=why, count=n) for (name, why), n in left.items()),
        engines=engines,
        block_sizes=_block_sizes([block for graph in graphs for block in graph.blocks]),
        graphs=len(graphs),
        graph_breaks=dict(sorted((graph_breaks or {}).items())),
    )


def _left(graph: Graph) -> Counter[tuple[str, str]]:
    """Return what of one graph is in no engine: (operator, reason) → count."""
    rest = Counter(graph.operators)
    for engine in graph.engines:
        rest.subtract(engine.operators)
    found: Counter[tuple[str, str]] = Counter()
    for reason, kinds in graph.unsupported.items():
        found.update({(name, reason): n for name, n in kinds.items()})
        rest.subtract(kinds)
    small: Counter[str] = Counter()
    for block in graph.blocks:
        if block.size < graph.min_block_size:
            small.update(block.operators)
    for name, n in (+rest).items():
        of_small = min(n, small[name])
        found[name, too_small(graph.min_block_size)] += of_small
        found[name, PARTITIONER] += n - of_small
    return +found


def _block_sizes(blocks: list[Block]) -> list[BlockSize]:
    rows = []
    for size in sorted({block.size for block in blocks}):
        kept = [block for block in blocks if block.size >= size]
        operators = sum(sum(block.operators.values()) for block in kept)
        rows.append(BlockSize(min_block_size=size, engines=len(kept), operators=operators))
    return rows


def complaint(found: Coverage, *, engines: int | None = None, left: Iterable[str] = ()) -> str:
    """Return what keeps a coverage from being wanted, and what to do about it; empty when nothing does.

    Parameters
    ----------
    engines
        The most engines that are wanted; None takes any number.
    left
        Operators that may stay in PyTorch, such as `aten.nonzero.default`.

    """
    allowed = set(left)
    unwanted = [entry for entry in found.left if entry.operator not in allowed]
    lines = []
    for reason in sorted({entry.reason for entry in unwanted}):
        entries = [entry for entry in unwanted if entry.reason == reason]
        named = ", ".join(f"{entry.count} {entry.operator}" for entry in entries)
        total = sum(entry.count for entry in entries)
        lines.append(f"  {total} for this reason: {reason}: {named}; {_remedy(reason, found)}")
    if engines is not None and len(found.engines) > engines:
        sizes = ", ".join(str(engine.size) for engine in found.engines)
        lines.append(f"  {len(found.engines)} engines (of {sizes} operators), {engines} wanted at most")
    if found.graph_breaks:
        lines.append(f"  graph breaks: {'; '.join(found.graph_breaks)}")
    if not lines:
        return ""
    stay = sum(entry.count for entry in unwanted)
    head = f"{stay} of {found.total} operators stay in PyTorch at min_block_size={found.min_block_size}"
    return "\n".join([head, *lines])


def _remedy(reason: str, found: Coverage) -> str:
    if reason == too_small(found.min_block_size):
        fitting = [row for row in found.block_sizes if row.min_block_size < found.min_block_size]
        if not fitting:
            return "leave it out of the assertion"
        most = fitting[0]
        return f"min_block_size={most.min_block_size} puts {most.operators} into {most.engines} engine(s)"
    return {
        NO_CONVERTER: "register a converter, replace the operator in the model, or allow it with left=[…]",
        REFUSED: "its converter does not take these arguments: change them in the model, or allow it with left=[…]",
        EXCLUDED: "take it out of torch_executed_ops",
        DYNAMIC: "export with static shapes, or register a converter that supports dynamic ones",
    }.get(reason, "allow it with left=[…]")


# Comparing


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What changed between two coverages; each entry is a phrase that names it."""

    lost: list[str]
    gained: list[str]
    other: list[str]

    def __bool__(self) -> bool:
        return bool(self.lost or self.gained or self.other)


def compare(before: Coverage, after: Coverage) -> Difference:
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
    return Difference(lost=lost, gained=gained, other=other)


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
