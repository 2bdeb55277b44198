"""Operators that no graph has: a coverage of nothing, and frames that Dynamo skipped, with Dynamo's reasons."""

from __future__ import annotations

from ..records.coverage_record import Coverage


def problem(found: Coverage) -> str:
    """Return why a coverage does not tell of the whole model, in one line; empty when it does."""
    return nothing(found) or skipped(found)


def nothing(found: Coverage) -> str:
    """Return why no operator was counted, in one line; empty when one was."""
    if found.total:
        return ""
    head = "nothing reaches TensorRT"
    if found.skipped:
        return f"{head}: Dynamo skipped {'; '.join([*found.skipped, *found.graph_breaks])}"
    if found.graph_breaks:  # and nothing that makes a graph before, between or after them
        return f"{head}: Dynamo skipped the model: {'; '.join(found.graph_breaks)}"
    if found.graphs:
        return f"{head}: its graph has no operator, only inputs, constants and numbers"
    return (
        f"{head}: torch.compile made no graph of it; it has no operator, or Dynamo is switched off or does not trace "
        "its code"
    )


def skipped(found: Coverage) -> str:
    """Return what Dynamo skipped, in one line; empty when it skipped no frame."""
    if not found.skipped:
        return ""
    return f"Dynamo skipped {'; '.join(found.skipped)}: what that runs stays in PyTorch, and is in none of the counts"
