"""How steady is the device clock between launches, and how does it compare with other ways to time a module?

    python studies/clocks.py [--case resnet18-dynamo-fp16-b1-mbs5] [--launches 8]

Builds the case once, loads it in fresh processes that take turns on the GPU, and times it there with trtgate's
clock, nvbench (batch mean over a graph replay, if `cuda-bench` is installed) and the usual ways. Prints a table with
versions and machine. Needs a GPU. A module against itself: two arms of the same module, every block a new capture
in a random place, ABBA order; `d` is the mean log ratio and should centre on zero.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUITE = "benchmarks/suite.py"
AB_QUADRUPLES = 8
TOGETHER = "all resident on the GPU, taking turns, as in a gate"
ALONE = "each alone on the GPU"


def main() -> None:
    """Build, start the launches, let them measure one after the other, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="resnet18-dynamo-fp16-b1-mbs5")
    parser.add_argument("--launches", type=int, default=8)
    parser.add_argument("--alone", action="store_true", help="one process on the GPU at a time; trtgate's clock only")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--launch", metavar="ARTIFACT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.launch:
        launch(options.case, options.launch, alone=options.alone)
        return
    with tempfile.TemporaryDirectory() as folder:
        build(options.case, Path(folder))
        command = [sys.executable, __file__, "--case", options.case, "--launch", folder]
        command += ["--alone"] if options.alone else []
        waiting = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            for _ in range(options.launches)
        ]
        results = []
        for process in waiting:
            assert process.stdout is not None
            while "ready" not in (line := process.stdout.readline()):
                if not line:
                    sys.exit(f"a launch ended early with exit code {process.wait()}")
        for process in waiting:  # all are loaded; now one at a time
            output, _ = process.communicate("go\n", timeout=300)
            results.append(json.loads(output.strip().splitlines()[-1]))
    if options.json:
        options.json.write_text(json.dumps(results))
    print(f"\n{options.case}, {options.launches} launches of one build, {ALONE if options.alone else TOGETHER}")
    report(results)


def build(case_id: str, folder: Path) -> None:
    """Build the case and store its artifact and inputs."""
    from trtgate.compiling import building
    from trtgate.suite.suite_source import SuiteSource

    case = SuiteSource(root=str(ROOT), suites=(SUITE,)).load().cases[case_id]
    module, inputs = building.make(case, "cuda")
    inference = building.build(case, module, inputs, lambda step: print(f"# {step}", flush=True))
    building.save(case, inference, folder)


def launch(case_id: str, folder: str, *, alone: bool) -> None:
    """One launch: load, wait for the turn, measure in every way, print one line of JSON."""
    import torch
    import torch_tensorrt  # noqa: F401 - its import takes seconds that no launch should wait for

    from trtgate.common.accelerator import detect
    from trtgate.launches import messages
    from trtgate.launches.worker_state import Worker
    from trtgate.suite.suite_source import SuiteSource
    from trtgate.timing.measuring_loop import ON_GPU
    from trtgate.verdict import launch_mean

    if alone:
        wait_for_turn()
    source = SuiteSource(root=str(ROOT), suites=(SUITE,))
    worker = Worker(messages.Hello(source=source, device="cuda", uuid=detect().uuid, sys_path=[]))
    worker.load(messages.Load(case_id=case_id, artifact=folder))
    if not alone:
        wait_for_turn()
    start = time.perf_counter()
    plans = [ON_GPU.of_turn(number) for number in range(ON_GPU.turns)]
    turns = [worker.measure(messages.Measure(plan=plan, seed=random.getrandbits(32))) for plan in plans]
    seconds = time.perf_counter() - start
    captures = [math.log(statistics.median(c.blocks_us)) for turn in turns for c in turn.captures]
    call = worker._inference
    with torch.no_grad():
        figures = {
            "trtgate": math.exp(launch_mean(captures)),
            "seconds": seconds,
            "captures_us": [math.exp(value) for value in captures],
            "capture_sd": statistics.stdev(captures),
            "host": statistics.median(turns[-1].host_us),
        }
        if not alone:
            figures |= {**same_graph(call, worker), "aa": against_itself(call, worker), **others(call)}
            figures |= within_captures(call, worker)
    figures["versions"] = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": torch.cuda.get_device_name()}
    print(json.dumps(figures), flush=True)
    os._exit(0)  # nvbench and TensorRT may not agree on who frees the context first


def wait_for_turn() -> None:
    """Say that all is imported, and wait for the word."""
    print("ready", flush=True)
    sys.stdin.readline()


def same_graph(call: Any, worker: Any) -> dict[str, float]:
    """Time one capture with our blocks and with nvbench's batches."""
    from trtgate.timing.cuda_graph_clock import CudaGraphClock

    clock = CudaGraphClock(call, worker._spin, random.Random(), call.place_inputs)
    clock.arm()
    for _ in range(15):
        clock.block(100, _nothing)
    before = [clock.block(100, _nothing) for _ in range(10)]
    found = {"same_graph_nvbench": nvbench(clock._graph.replay)} if clock._graph is not None else {}
    for _ in range(15):
        clock.block(100, _nothing)
    after = [clock.block(100, _nothing) for _ in range(10)]
    clock.close()
    return {"same_graph_trtgate": statistics.median(before + after), **found}


def within_captures(call: Any, worker: Any) -> dict[str, float]:
    """Return how the blocks of one capture differ, in logs: their spread, and two against those that follow.

    These are the one that a gate throws away and the one that it takes.
    """
    from trtgate.timing import measuring_loop
    from trtgate.timing.cuda_graph_clock import CudaGraphClock

    clock = CudaGraphClock(call, worker._spin, random.Random(), call.place_inputs)
    clock.arm()
    calls, _ = measuring_loop.warm_up(clock, measuring_loop.ON_GPU)
    captures = []
    for _ in range(measuring_loop.ON_GPU.captures * measuring_loop.ON_GPU.turns):
        clock.arm()
        captures.append([math.log(clock.block(calls, _nothing)) for _ in range(5)])
    clock.close()
    variance = statistics.mean(statistics.variance(blocks[1:]) for blocks in captures)
    thrown_away, taken = (statistics.mean(one[n] - statistics.mean(one[2:]) for one in captures) for n in (0, 1))
    return {"block_sd": math.sqrt(variance), "thrown_away": thrown_away, "taken": taken}


def nvbench(replay: Any) -> float:
    """Return nvbench's batch mean in microseconds, NaN when `cuda-bench` is not installed."""
    try:
        from cuda import bench
    except ImportError:
        return math.nan
    import torch

    def graph_replay(state: Any) -> None:
        stream = torch.cuda.ExternalStream(state.get_stream().addressof())

        def run(_launch: Any) -> None:
            with torch.cuda.stream(stream):
                replay()

        state.exec(run, batched=True)

    bench.register(graph_replay)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        bench.run_all_benchmarks(["clocks", "--json", file.name, "--quiet"])
        document = json.loads(Path(file.name).read_text())
    (state,) = document["benchmarks"][0]["states"]
    summary = next(s for s in state["summaries"] if s["tag"] == "nv/batch/time/gpu/mean")
    value = next(item["value"] for item in summary["data"] if item["name"] == "value")
    return float(value) * 1e6


def against_itself(call: Any, worker: Any) -> float:
    """Return the mean over quadruples of ½·Σ ln(B/A), both arms the same module, a new capture for every block."""
    from trtgate.timing.cuda_graph_clock import CudaGraphClock

    rng = random.Random()
    clock = CudaGraphClock(call, worker._spin, rng, call.place_inputs)
    for _ in range(3):
        clock.arm()
        clock.block(100, _nothing)

    def one() -> float:
        clock.arm()
        clock.block(100, _nothing)
        return math.log(clock.block(100, _nothing))

    ratios = []
    for _ in range(AB_QUADRUPLES):
        order = rng.choice(("ABBA", "BAAB"))
        logs = [(arm, one()) for arm in order]
        ratios.append(sum(value if arm == "B" else -value for arm, value in logs) / 2)
    clock.close()
    return statistics.mean(ratios)


def others(call: Any) -> dict[str, float]:
    """Time it the usual ways; medians in microseconds."""
    import torch
    import torch.utils.benchmark
    import triton.testing

    found = {"triton do_bench": triton.testing.do_bench(call, return_mode="median") * 1e3}
    found["torch.utils.benchmark"] = (
        torch.utils.benchmark.Timer("call()", globals={"call": call}).blocked_autorange().median * 1e6
    )
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found["triton do_bench_cudagraph"] = triton.testing.do_bench_cudagraph(call, return_mode="median") * 1e3
    torch.cuda.synchronize()
    found["pytest-benchmark's way"] = host_clock(call)
    return found


def host_clock(call: Any) -> float:
    """Time call + synchronize on the host's clock, as a pytest-benchmark test of a GPU module would."""
    import torch

    times = []
    for _ in range(300):
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def report(results: list[dict[str, Any]]) -> None:
    """Print the table."""
    versions = results[0]["versions"]
    print(f"{versions['gpu']}, torch {versions['torch']}, CUDA {versions['cuda']}, Python {sys.version.split()[0]}")
    print(f"{'clock':30}{'median µs':>11}{'least':>10}{'most':>10}{'sd between launches':>22}")
    names = [
        "trtgate", "same_graph_trtgate", "same_graph_nvbench", "triton do_bench_cudagraph",
        "triton do_bench", "torch.utils.benchmark", "pytest-benchmark's way",
    ]  # fmt: skip
    for name in [name for name in names if not math.isnan(results[0].get(name, math.nan))]:
        values = [r[name] for r in results]
        sd = statistics.stdev(math.log(v) for v in values) if len(values) > 1 else math.nan
        print(f"{name:30}{statistics.median(values):11.2f}{min(values):10.2f}{max(values):10.2f}{sd:21.3%}")
    print(
        f"seconds of measuring per launch: {statistics.mean(r['seconds'] for r in results):.2f} "
        "(two turns, with host latency)"
    )
    print(f"sd between captures of a launch: {statistics.mean(r['capture_sd'] for r in results):.3%}")
    if "aa" not in results[0]:
        return
    thrown_away, taken = ([r[name] for r in results] for name in ("thrown_away", "taken"))
    print(
        f"sd between blocks of a capture: {statistics.mean(r['block_sd'] for r in results):.3%}; against those that "
        f"follow, the one that is taken: {statistics.mean(taken):+.4%} (largest {max(taken, key=abs):+.4%}), the one "
        f"that is thrown away: {statistics.mean(thrown_away):+.4%} (largest {max(thrown_away, key=abs):+.4%})"
    )
    ratios = [r["same_graph_trtgate"] / r["same_graph_nvbench"] - 1 for r in results]
    if not math.isnan(ratios[0]):
        at_most = max(ratios, key=abs)
        print(f"trtgate / nvbench - 1 on the same graph: {statistics.mean(ratios):+.3%} (largest {at_most:+.3%})")
    d = [r["aa"] for r in results[:5]]
    print(
        f"a module against itself, {len(d)} launches: d = {statistics.mean(d):+.4%}, each: "
        + " ".join(f"{v:+.3%}" for v in d)
    )


def _nothing() -> None:
    pass


if __name__ == "__main__":
    main()
