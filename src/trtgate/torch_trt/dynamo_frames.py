"""What `torch.compile` left out of its graphs, and why: frames that Dynamo skipped, graphs that it broke."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MOST_FRAMES = 100_000
"""That one model is compiled in; Dynamo keeps the metrics of the last 64 otherwise."""
LONGEST_CONTEXT = 60
"""A longer "developer debug context" repeats what the reason says before it."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_CONTEXT = re.compile(r"^\s*Developer debug context: (.+)$", re.MULTILINE)
_RESUMED = re.compile(r"^torch_dynamo_resume_in_(.+)_at_\d+$")
"""What Dynamo calls the rest of a function after a graph break."""


class LeftOut:
    """Reason → count. All operators of a skipped frame run in PyTorch, and are in no graph that could be counted."""

    def __init__(self) -> None:
        self.skipped: dict[str, int] = {}
        self.graph_breaks: dict[str, int] = {}


@contextlib.contextmanager
def observing() -> Iterator[LeftOut]:
    """Within: what Dynamo leaves out is noted, and known at the end. `torch.compiler.reset()` would forget it.

    Dynamo keeps it as data (run with torch 2.14): the metrics of each frame that it compiled say why one failed,
    `graph_break_reasons` has all breaks, those before the first operator included, which make no graph, and
    `counters["unimplemented"]` why a frame could not be compiled to its end.
    """
    from torch._dynamo import utils

    left_out = LeftOut()
    breaks_before, frames_before = len(utils.graph_break_reasons), len(utils.get_compilation_metrics())
    unimplemented_before = Counter(utils.counters["unimplemented"])
    limit = utils._compilation_metrics.maxlen
    utils.set_compilation_metrics_limit(MOST_FRAMES)
    try:
        yield left_out
    finally:
        frames = utils.get_compilation_metrics()[frames_before:]
        utils.set_compilation_metrics_limit(limit)
        breaks = utils.graph_break_reasons[breaks_before:]
        unimplemented = map(_reason, Counter(utils.counters["unimplemented"]) - unimplemented_before)
        failed = [frame for frame in frames if frame.fail_type and frame.co_name]
        others = sorted(set(unimplemented) - {_reason(frame.fail_reason or "") for frame in failed})
        left_out.skipped = dict(
            Counter(map(_frame, failed)) + Counter(_rest(one, others) for one in breaks if _skips_the_rest(one))
        )
        left_out.graph_breaks = dict(
            Counter(f"{_reason(one.reason)}{_place(one.user_stack)}" for one in breaks if not _skips_the_rest(one))
        )


def _frame(frame: Any) -> str:
    function = _RESUMED.sub(r"\1", frame.co_name)
    return f"{Path(frame.co_filename or '').name}:{function}: {_reason(frame.fail_reason or frame.fail_type)}"


def _skips_the_rest(why: Any) -> bool:
    """Whether Dynamo compiled a frame up to there and will never go on (`step_graph_break`), other than at a break."""
    return bool(why.reason == "step_unsupported")


def _rest(why: Any, unimplemented: list[str]) -> str:
    """Return which rest of a frame is skipped. Dynamo does not keep which of its reasons was this one's."""
    place = _place(why.user_stack).removeprefix(" at ")
    return f"the rest of {place or 'a frame'}: {' or '.join(unimplemented) or 'Dynamo says no reason'}"


def _reason(text: str) -> str:
    """Return the first line, with what it is about where Dynamo says that in few words; without addresses."""
    if not text.strip():
        return ""
    context = _CONTEXT.search(text)
    about = _ADDRESS.sub("", context[1]).strip() if context else ""
    first = _ADDRESS.sub("", text.strip().splitlines()[0])
    return f"{first} ({about})" if 0 < len(about) <= LONGEST_CONTEXT else first


def _place(stack: Iterable[Any]) -> str:
    """Return the innermost frame, without its line, which every edit moves; empty for code of Dynamo's own."""
    frames = list(stack or ())
    if not frames or Path(frames[-1].filename).parent.name == "_dynamo":
        return ""
    return f" at {Path(frames[-1].filename).name}:{frames[-1].name}"
