"""What a turn's time goes into, and how soon its blocks read as those that follow.

    python studies/turns.py [CASE …] [--processes 2]

Builds each case once, loads it in fresh processes that take turns on the GPU as launches do, and replays blocks for
longer than a gate would: before the first capture that counts, by the time since the turn began, and within captures.
What `trtgate.timing.measuring_loop` gives a warm-up, and a capture before the block that is taken, is held against
this. Prints a table with versions and machine. Needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUITE = "benchmarks/suite.py"
CASES = [
    "resnet18-eager-fp32-b1", "mobilenet_v3_large-eager-fp32-b1", "resnet18-dynamo-fp16-b1-mbs5",
    "mobilenet_v3_large-dynamo-fp16-b8-mbs5", "vit_b_16-dynamo-fp32-b1-mbs5",
]  # fmt: skip
TURNS, CAPTURES, BLOCKS = 2, 10, 7
BLOCK_S, WARM_UP_S = 0.005, 0.5
WINDOWS_MS = (0, 25, 50, 100, 200, 1000 * WARM_UP_S)


def main() -> None:
    """Start the processes, build, let them measure one after the other, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write all that was measured to this file")
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        serve()
        return
    command = [sys.executable, __file__, "--process"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(options.processes)
    ]
    found: dict[str, list[list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        artifacts = {case_id: build(case_id, Path(folder) / case_id) for case_id in options.cases}
        described = versions()
        for case_id, artifact in artifacts.items():
            loads = [ask(process, {"load": case_id, "artifact": artifact}) for process in processes]
            turns = [[ask(process, {}) for process in processes] for _ in range(TURNS)]
            found[case_id] = [loads, *turns]
    for process in processes:
        process.communicate(timeout=60)
    if options.json:
        options.json.write_text(json.dumps(found))
    print(f"\n{described}; {options.processes} processes, {TURNS} turns, {CAPTURES} captures of {BLOCKS} blocks")
    for case_id, (loads, *turns) in found.items():
        report(case_id, loads, turns)


def ask(process: subprocess.Popen[str], request: dict[str, Any]) -> dict[str, Any]:
    """Send one request, and return the reply."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    while not (line := process.stdout.readline()).startswith("{"):
        if not line:
            sys.exit(f"a process ended early with exit code {process.wait()}")
    return dict(json.loads(line))


def build(case_id: str, folder: Path) -> str | None:
    """Build the case and store its artifact and inputs, if its frontend can; returns where."""
    from trtgate import frontends
    from trtgate.compiling import building
    from trtgate.suite.suite_source import SuiteSource

    case = SuiteSource(root=str(ROOT), suites=(SUITE,)).load().cases[case_id]
    if not frontends.stores(case):
        return None
    folder.mkdir()
    module, inputs = building.make(case, "cuda")
    building.save(case, building.build(case, module, inputs, lambda _step: None), folder)
    return str(folder)


def versions() -> str:
    """Return the card and the versions."""
    import torch

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {sys.version.split()[0]}"


def serve() -> None:
    """One process: load what is asked for, or measure one turn of it."""
    from trtgate.common.accelerator import detect
    from trtgate.launches import messages
    from trtgate.launches.worker_state import Worker
    from trtgate.suite.suite_source import SuiteSource

    start = time.perf_counter()
    source = SuiteSource(root=str(ROOT), suites=(SUITE,))
    worker = Worker(messages.Hello(source=source, device="cuda", uuid=detect().uuid, sys_path=[], tensorrt=True))
    imported_s = time.perf_counter() - start
    for line in sys.stdin:
        request, start = json.loads(line), time.perf_counter()
        if "load" in request:
            loaded = worker.load(messages.Load(case_id=request["load"], artifact=request["artifact"]))
            seconds = time.perf_counter() - start
            reply = {"import_s": imported_s, "seconds": seconds, "load_s": loaded.seconds}
        else:
            reply = turn(worker)
        print(json.dumps(reply), flush=True)


def turn(worker: Any) -> dict[str, Any]:
    """Measure one turn as a gate does, for its seconds, and then more blocks of it than a gate would."""
    import msgspec

    from trtgate.launches import messages
    from trtgate.timing.canary import gpu_canary
    from trtgate.timing.cuda_graph_clock import CudaGraphClock
    from trtgate.timing.measuring_loop import ON_GPU, calls_per_block

    call, plan = worker._inference, msgspec.structs.replace(ON_GPU, block_s=BLOCK_S)
    start = time.perf_counter()
    gpu_canary(worker._spin)
    canary_s = time.perf_counter() - start
    clock = CudaGraphClock(call, worker._spin, random.Random(), call.place_inputs)
    arm_s = [timed(clock.arm)]
    calls = calls_per_block(clock.block(1, _nothing), plan)
    warm_up: list[tuple[float, float]] = []
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < WARM_UP_S:
        warm_up.append((elapsed * 1e3, clock.block(calls, _nothing)))
        calls = calls_per_block(warm_up[-1][1], plan)
    captures = []
    for _ in range(CAPTURES):
        arm_s.append(timed(clock.arm))
        captures.append([clock.block(calls, _nothing) for _ in range(BLOCKS)])
    clock.close()
    turns = [worker.measure(messages.Measure(plan=ON_GPU.of_turn(n), seed=random.getrandbits(32))) for n in (0, 1)]
    return {
        "canary_s": canary_s, "arm_s": arm_s, "warm_up": warm_up, "captures": captures, "calls": calls,
        "turn_s": [one.seconds for one in turns],
    }  # fmt: skip


def timed(do: Any) -> float:
    """Return the seconds that something takes."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def report(case_id: str, loads: list[dict[str, Any]], turns: list[list[dict[str, Any]]]) -> None:
    """Print what was seen of one case."""
    every = [one for turn in turns for one in turn]
    last = [one["turn_s"] for one in turns[-1]]
    print(
        f"\n{case_id}: imported in {max(one['import_s'] for one in loads):.1f} s, asked to load for "
        f"{max(one['seconds'] for one in loads):.2f} s, {max(one['load_s'] for one in loads):.2f} s of it loading; "
        f"canary {statistics.median(one['canary_s'] for one in every) * 1e3:.0f} ms, "
        f"capturing {statistics.median(s for one in every for s in one['arm_s']) * 1e3:.1f} ms; a gate's turns "
        f"{statistics.mean(one[0] for one in last):.2f} s and, with host latencies, "
        f"{statistics.mean(one[1] for one in last):.2f} s"
    )
    for number, turn in enumerate(turns, 1):
        said = []
        for low, high in pairwise(WINDOWS_MS):
            moved = [of_warm_up(one["warm_up"], low, high) for one in turn]
            said.append(f"{low:.0f}-{high:.0f} ms " + " ".join(f"{d:+.3%}" for d in moved))
        settled_ms = WINDOWS_MS[-1] - WINDOWS_MS[-2]
        print(f"  warm-up, turn {number}, against its last {settled_ms:.0f} ms: {'; '.join(said[:-1])}")
    logs = [[math.log(us) for us in blocks] for one in every for blocks in one["captures"]]
    following = BLOCKS // 2 + 1
    said = [
        f"{number + 1} {statistics.mean(one[number] - statistics.mean(one[-following:]) for one in logs):+.4%}"
        for number in range(BLOCKS - following)
    ]
    spread = math.sqrt(statistics.mean(statistics.variance(one[-following:]) for one in logs))
    medians = [[statistics.median(one[1:]) for one in logs[n : n + CAPTURES]] for n in range(0, len(logs), CAPTURES)]
    between = math.sqrt(statistics.mean(statistics.variance(one) for one in medians))
    first = [one[0] - statistics.median(one[1:]) for one in medians]
    print(
        f"  blocks of a capture ({every[0]['calls']} replays, {BLOCK_S * 1e3:.0f} ms) against its last {following}: "
        f"{', '.join(said)}; their sd {spread:.3%}; sd between captures {between:.3%}, "
        f"the first against the rest, each turn: {' '.join(f'{d:+.2%}' for d in first)}"
    )


def of_warm_up(blocks: list[list[float]], low: float, high: float) -> float:
    """Return how far the blocks that began within milliseconds `low` to `high` lie from those of the last window."""
    settled = statistics.mean(math.log(us) for ms, us in blocks if ms >= WINDOWS_MS[-2])
    within = [math.log(us) for ms, us in blocks if low <= ms < high]
    return statistics.mean(within) - settled if within else math.nan


def _nothing() -> None:
    pass


if __name__ == "__main__":
    main()
