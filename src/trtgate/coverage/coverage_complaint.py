"""What keeps a coverage from being wanted, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..common.text_columns import first_few, number_of
from ..records.coverage_record import DISABLED, DYNAMIC, EXCLUDED, NO_CONVERTER, REFUSED, Coverage, Left, too_small
from . import unseen_operators

SOURCES_SHOWN = 3


def complaint(found: Coverage, *, engines: int | None = None, left: Iterable[str] = ()) -> str:
    """Return what keeps a coverage from being wanted, and what to do about it; empty when nothing does.

    Parameters
    ----------
    engines
        The most engines that are wanted; None takes any number.
    left
        Operators that may stay in PyTorch, such as `aten.nonzero.default`.

    """
    nothing = unseen_operators.nothing(found)
    if nothing:
        return nothing
    allowed = set(left)
    unwanted = [entry for entry in found.left if entry.operator not in allowed]
    lines = []
    for reason in sorted({entry.reason for entry in unwanted}):
        lines += _of_reason(reason, [entry for entry in unwanted if entry.reason == reason], found)
    if engines is not None and len(found.engines) > engines:
        sizes = ", ".join(str(engine.size) for engine in found.engines)
        lines.append(f"  {number_of(len(found.engines), 'engine')} (of {sizes} operators), {engines} wanted at most")
    if found.graph_breaks:
        lines.append(f"  graph breaks: {'; '.join(found.graph_breaks)}")
    if found.skipped:
        lines.append(f"  {unseen_operators.skipped(found)}")
    if not lines:
        return ""
    stay = sum(entry.count for entry in unwanted)
    head = f"{stay} of {found.total} operators stay in PyTorch at min_block_size={found.min_block_size}"
    return "\n".join([head if found.engines else f"nothing reaches TensorRT: {head}", *lines])


def _of_reason(reason: str, entries: Sequence[Left], found: Coverage) -> list[str]:
    named = ", ".join(f"{entry.count} {entry.operator}" for entry in entries)
    total = sum(entry.count for entry in entries)
    lines = [f"  {total} for this reason: {reason}: {named}; {_remedy(reason, found)}"]
    sources = sorted({source for entry in entries for source in entry.sources})
    return [*lines, f"    at {first_few(sources, SOURCES_SHOWN, separator='; ')}"] if sources else lines


def _remedy(reason: str, found: Coverage) -> str:
    if reason == too_small(found.min_block_size):
        fitting = [row for row in found.block_sizes if row.min_block_size < found.min_block_size]
        if not fitting:
            return "leave it out of the assertion"
        most = fitting[0]
        return f"min_block_size={most.min_block_size} puts {most.operators} into {number_of(most.engines, 'engine')}"
    if reason.startswith(DISABLED):
        return "a build fails at it: name it in torch_executed_ops, or replace the operator in the model"
    return {
        NO_CONVERTER: "register a converter, replace the operator in the model, or allow it with left=[…]",
        REFUSED: "its converter does not take these arguments: change them in the model, or allow it with left=[…]",
        EXCLUDED: "take it out of torch_executed_ops",
        DYNAMIC: "export with static shapes, or register a converter that supports dynamic ones",
    }.get(reason, "allow it with left=[…]")
