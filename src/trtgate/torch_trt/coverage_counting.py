"""Counts the coverage of lowered graphs that the partitioner saw.

Everything is counted from the graphs themselves, as multisets of operators: the lowered graph, less what the
partitioner put into engines, is what stays in PyTorch, whatever upstream's report lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from ..records.coverage_record import PARTITIONER, BlockSize, Coverage, EngineOperators, Left, too_small


class Call(NamedTuple):
    """An operator, and the line of source that it came from, as `source_lines.source_line` says it."""

    operator: str
    source: str = ""


Calls = dict[Call, int]


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Operators that would be one engine at `min_block_size=1`; `size` is what the partitioner compares."""

    size: int
    calls: Calls


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """What the partitioner put into one engine."""

    calls: Calls
    inputs: list[str]
    outputs: list[str]


class LoweredGraph(msgspec.Struct, kw_only=True):
    """One lowered graph as the partitioner saw it."""

    calls: Calls
    unsupported: dict[str, Calls]
    """Reason → operators that no engine can hold."""
    min_block_size: int
    engines: list[Engine] = []
    blocks: list[Block] = []


def count(
    graphs: Iterable[LoweredGraph],
    graph_breaks: Mapping[str, int] | None = None,
    skipped: Mapping[str, int] | None = None,
    *,
    min_block_size: int = 1,
) -> Coverage:
    """Count the graphs of one model; `min_block_size` is what was asked for, where there is no graph."""
    graphs = list(graphs)
    left: dict[tuple[str, str], Counter[str]] = {}
    for graph in graphs:
        for (call, reason), n in _left(graph).items():
            left.setdefault((call.operator, reason), Counter())[call.source] += n
    total = sum(sum(graph.calls.values()) for graph in graphs)
    unsupported = sum(sum(calls.values()) for graph in graphs for calls in graph.unsupported.values())
    engines = [_recorded(engine) for graph in graphs for engine in graph.engines]
    in_tensorrt = sum(engine.size for engine in engines)
    return Coverage(
        min_block_size=graphs[0].min_block_size if graphs else min_block_size,
        total=total,
        supported=total - unsupported,
        in_tensorrt=in_tensorrt,
        in_pytorch=total - in_tensorrt,
        left=[
            Left(operator=name, reason=why, count=sources.total(), sources=_known(sources))
            for (name, why), sources in sorted(left.items())
        ],
        engines=engines,
        block_sizes=_block_sizes([block for graph in graphs for block in graph.blocks]),
        graphs=len(graphs),
        graph_breaks=dict(sorted((graph_breaks or {}).items())),
        skipped=dict(sorted((skipped or {}).items())),
    )


def _recorded(engine: Engine) -> EngineOperators:
    operators: Counter[str] = Counter()
    for call, n in engine.calls.items():
        operators[call.operator] += n
    return EngineOperators(operators=dict(sorted(operators.items())), inputs=engine.inputs, outputs=engine.outputs)


def _known(sources: Counter[str]) -> dict[str, int]:
    return {source: n for source, n in sorted(sources.items()) if source}


def _left(graph: LoweredGraph) -> Counter[tuple[Call, str]]:
    """Return what of one graph is in no engine: (call, reason) → count."""
    rest = Counter(graph.calls)
    for engine in graph.engines:
        rest.subtract(engine.calls)
    found: Counter[tuple[Call, str]] = Counter()
    for reason, calls in graph.unsupported.items():
        found.update({(call, reason): n for call, n in calls.items()})
        rest.subtract(calls)
    small: Counter[Call] = Counter()
    for block in graph.blocks:
        if block.size < graph.min_block_size:
            small.update(block.calls)
    for call, n in (+rest).items():
        of_small = min(n, small[call])
        found[call, too_small(graph.min_block_size)] += of_small
        found[call, PARTITIONER] += n - of_small
    return +found


def _block_sizes(blocks: list[Block]) -> list[BlockSize]:
    rows = []
    for size in sorted({block.size for block in blocks}):
        kept = [block for block in blocks if block.size >= size]
        operators = sum(sum(block.calls.values()) for block in kept)
        rows.append(BlockSize(min_block_size=size, engines=len(kept), operators=operators))
    return rows
