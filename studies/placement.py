"""Where does the spread between launches come from: the capture, the loading of the engine, or the process?

    python studies/placement.py [--case resnet18-dynamo-fp16-b1-mbs5] [--launches 4] [--loads 5]

Builds the case once. Each process is alone on the GPU, loads the module several times and measures one turn after
each loading. Prints the standard deviation that each level adds (nested analysis of variance, method of moments:
Searle, Casella and McCulloch, Variance Components, 1992, §3.6), and what a launch's mean would spread by when its
engine is loaded once or anew for each turn. Needs a GPU.
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

from clocks import ROOT, SUITE, build


def main() -> None:
    """Build, run the processes one after the other, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="resnet18-dynamo-fp16-b1-mbs5")
    parser.add_argument("--launches", type=int, default=4)
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--launch", metavar="ARTIFACT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.launch:
        launch(options.case, options.launch, options.loads)
        return
    with tempfile.TemporaryDirectory() as folder:
        build(options.case, Path(folder))
        command = [sys.executable, __file__, "--case", options.case, "--launch", folder, "--loads", str(options.loads)]
        launches = []
        for _ in range(options.launches):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=300, check=True)
            launches.append(json.loads(done.stdout.strip().splitlines()[-1]))
    if options.json:
        options.json.write_text(json.dumps(launches))
    report(options.case, launches)


def launch(case_id: str, folder: str, loads: int) -> None:
    """Load and measure `loads` times; print the captures' medians in microseconds as one line of JSON."""
    import torch
    import torch_tensorrt  # noqa: F401 - its import takes seconds that no loading should wait for

    from trtgate.common.accelerator import detect
    from trtgate.launches import messages
    from trtgate.launches.worker_state import Worker
    from trtgate.suite.suite_source import SuiteSource
    from trtgate.timing.measuring_loop import ON_GPU

    source = SuiteSource(root=str(ROOT), suites=(SUITE,))
    worker = Worker(messages.Hello(source=source, device="cuda", uuid=detect().uuid, sys_path=[]))
    captures, load_s, measure_s = [], [], []
    for _ in range(loads):
        start = time.perf_counter()
        worker.load(messages.Load(case_id=case_id, artifact=folder))
        loaded = time.perf_counter()
        turn = worker.measure(messages.Measure(plan=ON_GPU, seed=random.getrandbits(32)))
        captures.append([statistics.median(capture.blocks_us) for capture in turn.captures])
        load_s.append(loaded - start)
        measure_s.append(time.perf_counter() - loaded)
    print(
        json.dumps(
            {
                "captures_us": captures,
                "load_s": load_s,
                "measure_s": measure_s,
                "machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}",
            }
        ),
        flush=True,
    )
    os._exit(0)  # TensorRT and torch may not agree on who frees the context first


def report(case_id: str, launches: list[dict[str, Any]]) -> None:
    """Print the components of variance and what they mean for a launch."""
    logs = [[[math.log(us) for us in load] for load in one["captures_us"]] for one in launches]
    loads, captures = len(logs[0]), len(logs[0][0])
    capture_var = statistics.mean(statistics.variance(load) for one in logs for load in one)
    load_means = [[statistics.mean(load) for load in one] for one in logs]
    of_loads = statistics.mean(statistics.variance(one) for one in load_means)
    load_var = max(of_loads - capture_var / captures, 0.0)
    of_launches = statistics.variance([statistics.mean(one) for one in load_means])
    process_var = max(of_launches - of_loads / loads, 0.0)
    print(
        f"\n{case_id}: {len(logs)} processes, {loads} loadings each, {captures} captures each; {launches[0]['machine']}"
    )
    for name, variance in (("captures", capture_var), ("loadings", load_var), ("processes", process_var)):
        print(f"standard deviation between {name:10}{math.sqrt(variance):8.3%}")
    once = process_var + load_var + capture_var / (2 * captures)
    anew = process_var + load_var / 2 + capture_var / (2 * captures)
    print(f"a launch of two turns: loaded once {math.sqrt(once):.3%}, loaded anew for each turn {math.sqrt(anew):.3%}")
    each = [math.exp(statistics.mean(one)) for one in load_means]
    print("each process, µs:", *(f"{us:.2f}" for us in each))
    for number, one in enumerate(load_means):
        print(f"loadings of process {number}, µs:", *(f"{math.exp(mean):.2f}" for mean in one))
    seconds = [statistics.mean(value for one in launches for value in one[key]) for key in ("load_s", "measure_s")]
    print(f"seconds: {seconds[0]:.2f} to load, {seconds[1]:.2f} to measure a turn")


if __name__ == "__main__":
    main()
