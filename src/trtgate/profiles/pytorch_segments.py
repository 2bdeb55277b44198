"""Where the time of a segment that stays in PyTorch goes, operator by operator, and of all kernels: torch.profiler."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from ..common.errors import TrtgateError
from ..records.profile_record import UNKNOWN, Layer, Operator, Part, Tensor
from .attribution import NAME
from .call_counts import THROWN_AWAY
from .layer_times import timed

MARK = "trtgate:"
MEASURED = f"{MARK}measured"
MOST_RANGES = 20_000
"""Of one trace; each takes some µs to read."""
COPIES = ("Memcpy", "Memset")
Kernel = tuple[str, float, float]
"""Name, start and duration in µs."""


class _Marked(torch.fx.Interpreter):
    """Runs a graph node by node, each in a range of its name."""

    def run_node(self, n: Any) -> Any:
        with record_function(f"{MARK}{n.name}"):
            return super().run_node(n)


def profile_segment(
    part: Part, module: torch.fx.GraphModule, inputs: Sequence[Any],
    *, on_gpu: bool, warm_up: int, blocks: int, calls: int,
) -> None:  # fmt: skip
    """Give a part in PyTorch its layers: an operator each, those that take no time on the device left out.

    Times are those of the kernels that an operator launched, in µs of one call; on a CPU the operator's own. Each of
    `blocks` is the median of `calls` warm calls, of fewer where there are very many operators. Raises TrtgateError when
    the device can't be seen.
    """
    nodes = [node.name for node in module.graph.nodes if node.op == "call_function"]
    calls = max(1, min(calls, MOST_RANGES // (blocks * max(1, len(nodes)))))
    marked = _Marked(module)
    with torch.no_grad():
        for _ in range(warm_up):
            marked.run(*inputs, enable_io_processing=False)
        with profile(activities=_activities(on_gpu=on_gpu)) as seen:
            if on_gpu:
                torch.ones(1, device="cuda").add_(1)  # a kernel that must be seen
            for _ in range(blocks * calls):
                marked.run(*inputs, enable_io_processing=False)
    events = list(seen.events() or ())
    if on_gpu and not any(event.device_type == DeviceType.CUDA for event in events):
        raise TrtgateError("torch.profiler saw no kernel: is CUPTI allowed to trace on this machine?")
    times: dict[str, list[float]] = {}
    for event in events:
        if event.name.startswith(MARK) and event.device_type == DeviceType.CPU:
            spent = event.device_time_total if on_gpu else event.cpu_time_total
            times.setdefault(event.name.removeprefix(MARK), []).append(float(spent))
    described = {operator.node: operator for operator in part.operators}
    columns = {node: _blocks(times.get(node, []), blocks, calls) for node in nodes}
    busy = [node for node in nodes if any(columns[node])]
    part.layers = [_layer(node, described.get(node)) for node in busy]
    timed(part, [columns[node] for node in busy])


def kernels(run: Callable[[], Any], *, warm_up: int, calls: int) -> list[Kernel]:
    """Return all kernels and copies of `calls` warm calls on a GPU, by their start.

    Without any profiler of TensorRT's: CUPTI times kernels as they run.
    """
    for _ in range(warm_up):
        run()
    torch.cuda.synchronize()
    with profile(activities=_activities(on_gpu=True)) as seen:
        for _ in range(THROWN_AWAY):
            run()
        torch.cuda.synchronize()
        with record_function(MEASURED):
            for _ in range(calls):
                run()
            torch.cuda.synchronize()
    events = list(seen.events() or ())
    begins = [e.time_range.start for e in events if e.name == MEASURED and e.device_type == DeviceType.CPU]
    found = [
        (event.name, float(event.time_range.start), float(event.time_range.elapsed_us()))
        for event in events
        if event.device_type == DeviceType.CUDA
        and event.name != MEASURED
        and not getattr(event, "is_user_annotation", False)
        and begins
        and event.time_range.start >= begins[0]
    ]
    return sorted(found, key=lambda kernel: kernel[1])


def busy_us(spans: Sequence[Kernel]) -> float:
    """Return for how long at least one of the kernels ran, in µs; they are in order of start, and may overlap."""
    total, reached = 0.0, float("-inf")
    for _, start, duration in spans:
        end = start + duration
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def copies_us(spans: Sequence[Kernel]) -> float:
    """Return the time of copies and fills among kernels, in µs."""
    return sum(duration for name, _, duration in spans if name.startswith(COPIES))


def _activities(*, on_gpu: bool) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]


def _blocks(times: Sequence[float], blocks: int, calls: int) -> list[float]:
    if len(times) != blocks * calls:
        return [0.0] * blocks
    return [statistics.median(times[start : start + calls]) for start in range(0, len(times), calls)]


def _layer(node: str, operator: Operator | None) -> Layer:
    if operator is None:
        return Layer(name=node, type="")
    outputs = [
        Tensor(name=node, shape=shape, dtype=dtype)
        for shape, dtype in zip(operator.shapes, operator.dtypes, strict=False)
    ]
    return Layer(
        name=node,
        type=operator.operator,
        outputs=outputs,
        sources=[node],
        modules=[operator.module] if operator.module != UNKNOWN else [],
        evidence=NAME,
    )
