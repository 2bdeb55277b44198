"""What one call does on the host, counted: lines of Python, dispatcher operations, CUDA calls, launches, waits, copies.

Counts are the same in every process, where latencies of a host are not. They are taken apart from any timing: tracing
makes a call slower, and CUPTI leaves traces in a process.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from ..common.errors import one_line
from ..common.metrics import CUDA_CALLS, DISPATCHER_OPS, KERNEL_LAUNCHES, MEMORY_OPERATIONS, PYTHON_LINES, WAITS
from ..records.measurement import CallCounts

os.environ.setdefault("TEARDOWN_CUPTI", "0")  # else a second trace of a process may hold nothing of the GPU
MARK = "trtgate: a call"
THROWN_AWAY = 3
"""Calls at the begin of a trace that are not counted: CUPTI of CUDA 12.6 to 13.0 loses the first kernels of a trace."""
SLOW_S = 1.0
"""A call of this length is counted once."""
OF_RUNTIME = ("cuda_runtime", "cuda_driver")
ASKING = ("Query", "Get", "Peek", "IsCapturing", "Occupancy")
"""In names of CUDA calls that only ask, some of them until the device has done something: how often says nothing."""
MOST_PLACES = 100
"""That are kept of a metric: those with the largest counts."""
LIBRARIES = ("torch/", "torch_tensorrt/", "trtgate/", "contextlib.py", "<")
"""Where a place begins that is nobody's own code."""

LINE = re.compile(r"\(\d+\)(?=: )")

Event = dict[str, Any]


def count(run: Callable[[], object], restore: Callable[[], object], *, gpu: bool) -> CallCounts:
    """Count what a warm call does; `run` makes one, `restore` puts back what it changes.

    What can't be counted here is left out, with the reason. Of two calls that differ the one with fewer lines counts: a
    cache was filled. Raises what `run` raises.
    """
    start = time.perf_counter()
    run()
    times = 2 if time.perf_counter() - start < SLOW_S else 1
    found = []
    for _ in range(times):
        restore()
        found.append(_lines(run))
    metrics, problem = {PYTHON_LINES: min(found, key=lambda one: one.total())}, ""
    restore()
    try:
        metrics |= of_trace(_traced(run, gpu=gpu), gpu=gpu)
    except RuntimeError as error:  # another profiler is at work, or CUPTI may not be used
        problem = f"torch.profiler can't trace it: {one_line(error)}"
    except OSError as error:
        problem = f"its trace can't be written: {one_line(error)}"
    restore()
    return CallCounts(
        counts={name: found.total() for name, found in metrics.items()},
        places={name: dict(found.most_common(MOST_PLACES)) for name, found in metrics.items()},
        problem=problem,
    )


def _lines(run: Callable[[], object]) -> Counter[str]:
    """Count the lines of Python that a call executes in this thread, by file and function."""
    found: Counter[str] = Counter()

    def on_line(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            found[f"{_short(frame.f_code.co_filename)}: {frame.f_code.co_name}"] += 1
        return on_line

    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()  # a finaliser that happens to run is none of the call's lines
    sys.settrace(lambda *_: on_line)
    try:
        run()
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
    return found


def _short(path: str) -> str:
    """Return a file's path below the folder that Python found it in, as torch.profiler names files."""
    entries = [entry for entry in sys.path if entry and path.startswith(entry.rstrip("/") + "/")]
    longest = max(entries, key=len, default="")
    return path[len(longest) :].lstrip("/") if longest else path


def _traced(run: Callable[[], object], *, gpu: bool) -> list[Event]:
    """Return the trace events of a call. Raises RuntimeError where it can't be traced."""
    import torch
    from torch.autograd.profiler import profile, record_function  # torch.profiler's own imports distributed: a second

    device = {"use_device": "cuda"} if gpu else {}
    with torch.no_grad(), profile(use_kineto=True, with_stack=True, **device) as seen:
        for _ in range(THROWN_AWAY if gpu else 0):
            run()
        if gpu:
            torch.cuda.synchronize()
        with record_function(MARK):
            run()
        if gpu:
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events: list[Event] = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return events


def of_trace(events: Iterable[Event], *, gpu: bool) -> dict[str, Counter[str]]:
    """Count the events of a marked call in the Trace Event Format: metric → name and place → how many.

    Raises RuntimeError where there is no marked call, or CUPTI gave nothing.
    """
    whole = [event for event in events if event.get("ph") == "X"]
    call = next((event for event in whole if event["name"] == MARK and event.get("cat") == "user_annotation"), None)
    if call is None:
        raise RuntimeError("the call is not in its trace")
    if gpu and not any(event.get("cat") in OF_RUNTIME for event in whole):  # there is one of ours at least
        raise RuntimeError("it saw no CUDA call: may CUPTI trace on this machine?")
    inside = [event for event in whole if call["ts"] <= event["ts"] <= call["ts"] + call["dur"]]
    inside.sort(key=lambda event: float(event["ts"]))  # an operation comes before those that it is made of
    places = _Places(event for event in inside if event.get("cat") == "python_function")
    metrics = (DISPATCHER_OPS, CUDA_CALLS, KERNEL_LAUNCHES, WAITS, MEMORY_OPERATIONS) if gpu else (DISPATCHER_OPS,)
    found: dict[str, Counter[str]] = {metric: Counter() for metric in metrics}
    for event in inside:
        for metric in _metrics_of(event.get("cat", ""), event["name"]):
            if metric in found:
                found[metric][f"{event['name']}{places.of(event)}"] += 1
    return found


def _metrics_of(category: str, name: str) -> list[str]:
    """Return what an event counts as."""
    if category == "cpu_op":
        return [DISPATCHER_OPS] if "::" in name else []
    if category not in OF_RUNTIME or any(word in name for word in ASKING):
        return []
    kinds = {
        KERNEL_LAUNCHES: "Launch" in name,
        WAITS: "Synchronize" in name,
        MEMORY_OPERATIONS: any(word in name for word in ("Memcpy", "Memset", "Malloc", "Free", "MemAlloc")),
    }
    return [CUDA_CALLS, *(metric for metric, is_one in kinds.items() if is_one)]


class _Span(NamedTuple):
    begin: float
    end: float
    name: str


class _Places:
    """Functions of Python by thread, to say in which of them something happened."""

    def __init__(self, functions: Iterable[Event]) -> None:
        self._spans: dict[Any, list[_Span]] = {}
        for event in functions:
            if not event["name"].startswith(LIBRARIES):
                name = LINE.sub("", event["name"])  # a function that moved within its file is the same
                span = _Span(event["ts"], event["ts"] + event["dur"], name)
                self._spans.setdefault(event.get("tid"), []).append(span)
        for spans in self._spans.values():
            spans.sort()

    def of(self, event: Event) -> str:
        """Return the innermost function of somebody's own code around an event, as the end of a sentence."""
        spans = self._spans.get(event.get("tid"), [])
        for span in reversed(spans[: bisect_right(spans, (event["ts"], float("inf"), ""))]):
            if span.end >= event["ts"]:
                return f" in {span.name}"
        return ""
