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
from types import CodeType, FrameType
from typing import Any, NamedTuple

from ..common.errors import one_line
from ..common.metrics import CUDA_CALLS, DISPATCHER_OPS, KERNEL_LAUNCHES, MEMORY_OPERATIONS, PYTHON_LINES, WAITS
from ..records.measurement import CallCounts
from ..timing import run_state

os.environ.setdefault("TEARDOWN_CUPTI", "0")  # else a second trace of a process may hold nothing of the GPU
MARK = "trtgate: a call"
THROWN_AWAY = 3
"""Calls at the begin of a trace that are not counted: CUPTI of CUDA 12.6 to 13.0 loses the first kernels of a trace."""
SLOW_S = 0.1
"""The lines of a call that takes this long are counted once: counting takes no more than two calls then."""
MOST_CALLS = 5
STEADY = 0.01
"""A difference of up to this share is none: counts of one piece of code that differ by more vary by themselves."""
OF_RUNTIME = ("cuda_runtime", "cuda_driver")
ASKING = ("Query", "Get", "Peek", "IsCapturing", "Occupancy")
"""In names of CUDA calls that only ask, some of them until the device has done something: how often says nothing."""
MOST_PLACES = 100
"""That are kept of a metric: those with the largest counts."""
MODULES = ("GraphModule_", "TorchTensorRTModule_", "CudaGraphsTorchTensorRTModule_")
"""Classes, as torch.profiler numbers them, of modules that are compiled."""
LIBRARIES = ("torch/", "torch_tensorrt/", "trtgate/", "contextlib.py", "<", *(f"nn.Module: {name}" for name in MODULES))
"""Where a place begins that is nobody's own code."""

MOST_LINES = 50_000
"""Of a call whose functions of Python are traced with its operations: each takes some kB and 10 µs."""
PROFILING = ("torch/autograd/profiler.py: _prepare_trace", "torch/autograd/profiler.py: _start_trace")
"""Where torch's profiler starts."""

LINE = re.compile(r"\(\d+\)(?=: )")

Event = dict[str, Any]


def count(run: Callable[[], object], restore: Callable[[], object], *, gpu: bool) -> CallCounts:
    """Count what a warm call does; `run` makes one and has been called before, `restore` puts back what it changes.

    Each call draws the same random numbers. What can't be counted here is left out, with the reason; so are lines that
    differ from call to call. Raises what `run` raises.
    """

    def alike(call: Callable[[], Any]) -> Any:
        restore()
        with run_state.seeded():
            return call()

    metrics: dict[str, Counter[str]] = {}
    lines: Counter[str] = Counter()
    try:
        lines, problems = _steady(lambda: alike(lambda: _lines(run)))
    except _UntracedError:
        problems = ["lines of Python can't be counted: it sets a trace function itself"]
    if not problems:
        metrics[PYTHON_LINES] = lines
    try:
        if any(place.endswith(PROFILING) for place in lines):  # one within another ends the process
            raise RuntimeError("it uses the profiler itself")
        places = lines.total() <= MOST_LINES
        metrics |= of_trace(alike(lambda: _traced(run, gpu=gpu, places=places)), gpu=gpu)
    except RuntimeError as error:  # another profiler is at work, or CUPTI may not be used
        problems.append(f"torch.profiler can't trace it: {one_line(error)}")
    except OSError as error:
        problems.append(f"its trace can't be written: {one_line(error)}")
    restore()
    return CallCounts(
        counts={name: found.total() for name, found in metrics.items()},
        places={name: dict(found.most_common(MOST_PLACES)) for name, found in metrics.items()},
        problem="; ".join(problems),
    )


def _steady(counted: Callable[[], Counter[str]]) -> tuple[Counter[str], list[str]]:
    """Count until two calls in a row give the same, but for STEADY of it: caches are filled then.

    Returns the smaller of these; where MOST_CALLS calls went on to differ, the last one and a line that says so.
    """
    found: list[Counter[str]] = []
    for _ in range(MOST_CALLS):
        start = time.perf_counter()
        found.append(counted())
        if time.perf_counter() - start >= SLOW_S:
            return found[-1], []
        last = sorted(found[-2:], key=lambda one: one.total())
        if len(last) == 2 and last[1].total() <= last[0].total() * (1 + STEADY):
            return last[0], []
    totals = [one.total() for one in found]
    return found[-1], [f"lines of Python differ from call to call, {min(totals)} to {max(totals)}, and are not judged"]


def _lines(run: Callable[[], object]) -> Counter[str]:
    """Count the lines of Python that a call executes in this thread, by file and function.

    Raises _UntracedError where the call has replaced the trace function: lines that followed would be missing.
    """
    found: Counter[CodeType] = Counter()

    def on_line(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            found[frame.f_code] += 1
        return on_line

    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()  # a finaliser that happens to run is none of the call's lines

    def on_call(*_given: Any) -> Any:
        return on_line

    sys.settrace(on_call)
    try:
        run()
        if sys.gettrace() is not on_call:
            raise _UntracedError
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
    named: Counter[str] = Counter()
    for code, times in found.items():
        named[f"{_short(code.co_filename)}: {code.co_name}"] += times
    return named


def _short(path: str) -> str:
    """Return a file's path below the folder that Python found it in, as torch.profiler names files."""
    entries = [entry for entry in sys.path if entry and path.startswith(entry.rstrip("/") + "/")]
    longest = max(entries, key=len, default="")
    return path[len(longest) :].lstrip("/") if longest else path


def _traced(run: Callable[[], object], *, gpu: bool, places: bool) -> list[Event]:
    """Return the trace events of a call, those of Python's functions too if `places` are asked for.

    Raises RuntimeError where it can't be traced.
    """
    import torch
    from torch.autograd.profiler import profile, record_function  # torch.profiler's own imports distributed: a second

    device = {"use_device": "cuda"} if gpu else {}
    with torch.no_grad(), profile(use_kineto=True, with_stack=places, **device) as seen:
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


class _UntracedError(Exception):
    """The call took the trace function away that counts its lines."""


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
