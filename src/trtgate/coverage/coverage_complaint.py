"""What keeps a coverage from being wanted, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

from ..records.coverage_record import DYNAMIC, EXCLUDED, NO_CONVERTER, REFUSED, Coverage, too_small


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
