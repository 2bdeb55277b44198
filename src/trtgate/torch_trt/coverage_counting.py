"""Counts the coverage of lowered graphs that the partitioner saw.

Everything is counted from the graphs themselves, as multisets of operators: the lowered graph, less what the
partitioner put into engines, is what stays in PyTorch, whatever upstream's report lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from ..records.coverage_record import PARTITIONER, BlockSize, Coverage, EngineOperators, Left, too_small


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Operators that would be one engine at `min_block_size=1`; `size` is what the partitioner compares."""

    size: int
    operators: dict[str, int]


class LoweredGraph(msgspec.Struct, kw_only=True):
    """One lowered graph as the partitioner saw it."""

    operators: dict[str, int]
    unsupported: dict[str, dict[str, int]]
    """Reason → operator → count, of operators that no engine can hold."""
    min_block_size: int
    engines: list[EngineOperators] = []
    blocks: list[Block] = []


def count(graphs: Iterable[LoweredGraph], graph_breaks: Mapping[str, int] | None = None) -> Coverage:
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


def _left(graph: LoweredGraph) -> Counter[tuple[str, str]]:
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
