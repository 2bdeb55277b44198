"""What a call does on the host is counted: the same in every process, with the place of what there is more of."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from trtgate import verdict
from trtgate.common.metrics import (
    CUDA_CALLS,
    DISPATCHER_OPS,
    KERNEL_LAUNCHES,
    MEMORY_OPERATIONS,
    PYTHON_LINES,
    WAITS,
)
from trtgate.profiles import call_counts


@pytest.fixture(autouse=True)
def at_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call is a slow one, however busy the machine is: those are counted once less."""
    monkeypatch.setattr(call_counts, "SLOW_S", math.inf)


class Net(torch.nn.Module):
    def __init__(self, loop: int = 0, copies: int = 0) -> None:
        super().__init__()
        self.linear, self.loop, self.copies = torch.nn.Linear(4, 4), loop, copies

    def forward(self, x: Any) -> Any:
        for _ in range(self.loop):
            pass
        for _ in range(self.copies):
            x = x.clone()
        return self.linear(x)


def counted(module: torch.nn.Module) -> Any:
    inputs = torch.ones(2, 4)

    def run() -> Any:
        with torch.no_grad():
            return module(inputs)

    run()
    return call_counts.count(run, lambda: None, gpu=False)


def test_counts_are_the_same_each_time() -> None:
    assert counted(Net()) == counted(Net())


def test_a_loop_in_python_is_seen_in_its_function() -> None:
    before, now = counted(Net()), counted(Net(loop=500))
    assert now.counts[PYTHON_LINES] - before.counts[PYTHON_LINES] >= 500
    assert now.counts[DISPATCHER_OPS] == before.counts[DISPATCHER_OPS]
    more = verdict.more_of(before.places[PYTHON_LINES], now.places[PYTHON_LINES])
    assert more.endswith("test_call_counts.py: forward")


def test_a_copy_is_seen_as_operations_in_its_function() -> None:
    before, now = counted(Net()), counted(Net(copies=2))
    more = verdict.more_of(before.places[DISPATCHER_OPS], now.places[DISPATCHER_OPS])
    assert "+2 aten::clone in " in more
    assert "test_call_counts.py: forward" in more


def test_a_compiled_module_is_counted_as_it_runs_and_is_not_compiled_again() -> None:
    compiled = torch.compile(Net(), backend="aot_eager")
    found = counted(compiled)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert counted(compiled) == found
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert "aten::addmm" in " ".join(found.places[DISPATCHER_OPS])


def test_a_tracer_that_was_there_is_there_again() -> None:
    def tracer(*_: Any) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        counted(Net())
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("theirs", [None, lambda *_: None], ids=["none", "another"])
def test_a_call_that_sets_a_tracer_itself_has_no_lines_and_says_so(theirs: Any) -> None:
    """The lines after that would be missing: a call that does more there would be none."""

    def draw() -> int:
        sys.settrace(theirs)
        return 500

    found = counted(Drawing(draw))
    assert PYTHON_LINES not in found.counts
    assert found.problem == "lines of Python can't be counted: it sets a trace function itself"
    assert found.counts[DISPATCHER_OPS] >= 500


def test_state_is_put_back_between_calls() -> None:
    """A cache that grows with every call is as long in every call that is counted."""
    cache: list[int] = []

    def run() -> None:
        for _ in cache:
            pass
        cache.append(1)

    found = [call_counts.count(run, cache.clear, gpu=False).counts[PYTHON_LINES] for _ in range(2)]
    assert found[0] == found[1]


class Drawing(torch.nn.Module):
    """It goes round as often as `draw` says, and makes as many operations."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Any) -> Any:
        for _ in range(self.draw()):
            x = x + 1
        return x


@pytest.mark.parametrize(
    "draw",
    [
        lambda: random.randrange(1000),
        lambda: int(np.random.randint(1000)),
        lambda: int(torch.randint(1000, ())),
    ],
    ids=["random", "numpy", "torch"],
)
def test_a_call_that_draws_random_numbers_draws_the_same_ones_each_time(draw: Any) -> None:
    first = counted(Drawing(draw))
    assert (first, first.problem) == (counted(Drawing(draw)), "")


def test_lines_that_differ_from_call_to_call_are_said_and_not_counted() -> None:
    turns = itertools.cycle([10, 200, 30, 400])
    found = counted(Drawing(lambda: next(turns)))
    assert PYTHON_LINES not in found.counts
    assert re.fullmatch(r"lines of Python differ from call to call, \d+ to \d+, and are not judged", found.problem)


def test_a_cache_that_is_filled_by_a_later_call_is_not_counted() -> None:
    """As one that is filled when a thing is asked for the second or third time."""
    cold = itertools.chain([500, 500, 300], itertools.repeat(0))
    warm = itertools.repeat(0)
    assert counted(Drawing(lambda: next(cold))) == counted(Drawing(lambda: next(warm)))


def test_a_steady_call_is_made_three_times_and_a_slow_one_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting is to take little beside a build."""
    calls = []
    call_counts.count(lambda: calls.append(1), lambda: None, gpu=False)
    assert len(calls) == 3
    monkeypatch.setattr(call_counts, "SLOW_S", 0.0)
    call_counts.count(lambda: calls.append(1), lambda: None, gpu=False)
    assert len(calls) == 3 + 2


def event(category: str, name: str, ts: float, dur: float = 1.0, tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": ts, "dur": dur, "tid": tid}


TRACE = [
    event("cuda_runtime", "cudaDeviceSynchronize", 1.0),
    event("user_annotation", call_counts.MARK, 10.0, 90.0),
    event("gpu_user_annotation", call_counts.MARK, 12.0, 20.0, tid=7),
    event("python_function", "torch/nn/modules/module.py(1775): _call_impl", 11.0, 80.0),
    event("python_function", "suite.py(10): forward", 12.0, 70.0),
    event("python_function", "suite.py(30): wait", 40.0, 10.0),
    event("python_function", "torch/cuda/__init__.py(999): synchronize", 41.0, 5.0),
    event("cpu_op", "aten::add", 20.0, 5.0),
    event("cpu_op", "TorchDynamo Cache Lookup", 19.0),
    event("cuda_runtime", "cudaLaunchKernel", 21.0),
    event("cuda_driver", "cuLaunchKernelEx", 22.0),
    event("cuda_runtime", "cudaMemcpyAsync", 23.0),
    event("cuda_runtime", "cudaEventQuery", 24.0),
    event("cuda_runtime", "cudaStreamIsCapturing", 25.0),
    event("cuda_runtime", "cudaDeviceSynchronize", 42.0),
    event("kernel", "add_kernel", 26.0, tid=7),
    event("cuda_runtime", "cudaDeviceSynchronize", 101.0),
]


def test_of_a_trace_what_the_marked_call_asked_the_device_for_is_counted_with_its_place() -> None:
    found = call_counts.of_trace(TRACE, gpu=True)
    forward = " in suite.py: forward"
    assert found == {
        DISPATCHER_OPS: Counter({f"aten::add{forward}": 1}),
        CUDA_CALLS: Counter(
            {
                f"cudaLaunchKernel{forward}": 1, f"cuLaunchKernelEx{forward}": 1, f"cudaMemcpyAsync{forward}": 1,
                "cudaDeviceSynchronize in suite.py: wait": 1,
            }
        ),
        KERNEL_LAUNCHES: Counter({f"cudaLaunchKernel{forward}": 1, f"cuLaunchKernelEx{forward}": 1}),
        WAITS: Counter({"cudaDeviceSynchronize in suite.py: wait": 1}),
        MEMORY_OPERATIONS: Counter({f"cudaMemcpyAsync{forward}": 1}),
    }  # fmt: skip


def test_what_a_generated_graph_module_calls_has_the_place_that_calls_the_module() -> None:
    """torch names it by its class, GraphModule, which is nobody's own code."""
    whole = event("python_function", "nn.Module: GraphModule_0", 12.5, 60.0)
    found = call_counts.of_trace([*TRACE, whole], gpu=True)
    assert found[KERNEL_LAUNCHES] == call_counts.of_trace(TRACE, gpu=True)[KERNEL_LAUNCHES]
    own = event("python_function", "nn.Module: Attention_0", 12.5, 60.0)
    assert set(call_counts.of_trace([*TRACE, own], gpu=True)[DISPATCHER_OPS]) == {"aten::add in nn.Module: Attention_0"}


def test_a_trace_without_the_call_is_no_count_of_nothing() -> None:
    with pytest.raises(RuntimeError, match="not in its trace"):
        call_counts.of_trace([event("cpu_op", "aten::add", 1.0)], gpu=False)


def test_a_gpu_whose_calls_can_not_be_seen_is_no_count_of_nothing() -> None:
    seen = [one for one in TRACE if one["cat"] not in call_counts.OF_RUNTIME]
    with pytest.raises(RuntimeError, match="no CUDA call"):
        call_counts.of_trace(seen, gpu=True)


def test_what_can_not_be_traced_is_said_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("another profiler is at work\nand more")

    monkeypatch.setattr(call_counts, "_traced", refused)
    found = counted(Net())
    assert found.counts.keys() == {PYTHON_LINES}
    assert found.problem == "torch.profiler can't trace it: RuntimeError: another profiler is at work"


def test_a_call_of_very_many_lines_is_traced_without_its_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """400,000 calls of functions took 11 s and 1.1 GB."""
    monkeypatch.setattr(call_counts, "MOST_LINES", 30)
    found = counted(Net(copies=1))
    assert found.places[DISPATCHER_OPS]["aten::clone"] == 1


def test_a_call_that_uses_the_profiler_itself_is_not_traced() -> None:
    """A profiler within another ends the process."""

    class Profiled(Net):
        def forward(self, x: Any) -> Any:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
                return super().forward(x)

    found = counted(Profiled())
    assert DISPATCHER_OPS not in found.counts
    assert "torch.profiler can't trace it: RuntimeError: it uses the profiler itself" in found.problem


def test_where_a_trace_can_not_be_written_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call_counts, "_traced", full)
    assert counted(Net()).problem.startswith("its trace can't be written: OSError: No space left on device")


MODELS = """

import os

MORE = bool(os.environ.get("MORE"))


def made_of(before):
    import torch

    class Net(torch.nn.Module):
        def forward(self, x):
            x = before(x)
            for _ in range(6):
                x = x + 1
            return x

    return Net().eval(), torch.ones(1, 4)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def copies():
    return made_of(lambda x: x.clone() if MORE else x)


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def loops():
    def before(x):
        for _ in range(200 * MORE):
            pass
        return x

    return made_of(before)
"""


def test_a_call_that_does_more_fails_with_what_and_where_and_can_be_accepted(folder: Any) -> None:
    """No latency tells it: time is scripted."""
    folder.suite(more=MODELS)
    latency = ("--trtgate-launches=1", "-m", "trtgate_latency")
    assert folder.gate("--trtgate-update-baselines", *latency).ret == 0
    more = folder.gate("--benchmark-compare", *latency, MORE=1)
    assert more.ret == 1
    more.stdout.fnmatch_lines_random(
        [
            "copies-eager-fp32 got worse: dispatcher operations a call * (+1 aten::clone in suite.py: *",
            "loops-eager-fp32 got worse: lines of Python a call * (+400 suite.py: before*",
        ]
    )
    accepted = folder.gate("--trtgate-update-baselines", "--trtgate-accept=*", *latency, MORE=1)
    assert accepted.ret == 0
    (file,) = folder.path.glob("baselines/*/latency.json")
    found = [entry["extra_info"]["trtgate"]["calls"]["counts"] for entry in json.loads(file.read_text())["benchmarks"]]
    assert max(counts["python_lines"] for counts in found) > 400


def test_a_call_that_fails_while_it_is_counted_is_told_in_a_line_with_its_case(folder: Any) -> None:
    folder.suite(
        more="""
CALLED = []


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def tires():
    def forward(x):
        CALLED.append(1)
        if len(CALLED) >= int(os.environ.get("LAST", "99")):
            raise ValueError("no more\\nof it")
        return x + 1

    return made(forward, __import__("torch").ones(1, 4))
"""
    )
    for last in range(1, 9):
        done = folder.gate("--trtgate-update-baselines", "--trtgate-launches=1", "-k", "tires and latency", LAST=last)
        said = [line for line in done.outlines if "a further call raised ValueError: no more" in line]
        if said:
            assert (done.ret, said[0].startswith("case tires-eager-fp32: ")) == (1, True)
            assert "Traceback" not in done.stdout.str()
            return
    pytest.fail("no call that is counted was the last one")
