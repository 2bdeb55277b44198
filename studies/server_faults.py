"""Is every fault that a server would feel found by its metric, and named; and is an unchanged module ever red?

    python studies/server_faults.py [--times 10] [--unchanged 20] [FAULT …]

A module that reads 100 MB of weights is recorded once, with counts, host latency, cold starts and load. Then the gate
is run on it with a fault in its code, in fresh processes, again and again, and without one. The faults:

wait   a `torch.cuda.synchronize()` before the call (on a GPU)
copy   a copy of the input; on a CPU three operations of forty more, which are above the limit of 5 %
loop   a loop of Python that takes about 50 µs
leak   a `bytearray` of 1024 bytes, kept by every call
load   the weights are read and kept a second time

Found is a run with exit code 1 whose sentence names the fault's metric and, but for the last, its function or line.
Interrupted, it prints what it has: counts with intervals of Clopper and Pearson, the machine and the versions. A busy
machine makes latencies open, so blocks count whoever else is at work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import torch
from ab_on_cpu import share

from trtgate.common import machine
from trtgate.common.accelerator import detect
from trtgate.common.text_columns import number_of
from trtgate.report.terminal_table import describe

SUITE = """
import os
from pathlib import Path

import torch
import trtgate
from trtgate.timing import canary, cpu_state, memory_growth

cpu_state.CpuMonitor.void_reason = lambda _monitor: ""
canary.cpu_canary = lambda: {"hash": 1000.0}
memory_growth.SECONDS = 8.0
FAULT = os.environ.get("FAULT", "")
WEIGHTS = Path(__file__).with_name("weights.pt")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEPT = []


def waiting():
    torch.cuda.synchronize()


def copying(x):
    return torch.empty_like(x).copy_(x)


def looping():
    for _ in range(1000):
        pass


def leaking():
    KEPT.append(bytearray(1024))


class Net(torch.nn.Sequential):
    def forward(self, x):
        if FAULT == "wait":
            waiting()
        if FAULT == "copy":
            x = copying(x)
        if FAULT == "loop":
            looping()
        if FAULT == "leak":
            leaking()
        return super().forward(x)


def weights():
    return torch.load(WEIGHTS, weights_only=True)


@trtgate.model(frontends=("own",))
def served():
    torch.manual_seed(0)
    net = Net(*[torch.nn.Linear(512, 512) for _ in range(4)]).eval().to(DEVICE)
    net.register_buffer("table", weights().to(DEVICE))
    if FAULT == "load":
        KEPT.append(weights().to(DEVICE))
    return net, torch.randn(8, 512, device=DEVICE)
"""
NUMBERS = 25_000_000
"""Of float32: 100 MB."""
TIMEOUT_S = 600
ASKED = ("--trtgate-load=2", "--trtgate-cold-starts=3", "--trtgate-launches=1")
VERDICTS = (" is ", " got ", " can't be told ")
"""In a sentence of a run about its case."""
UNCHANGED = "unchanged"
LEAKING = SUITE.splitlines().index("    KEPT.append(bytearray(1024))") + 1


class Fault(msgspec.Struct, frozen=True):
    """What a failing run must say of a fault: one of its metrics, and its place."""

    metrics: tuple[str, ...]
    place: str = ""


FAULTS = {
    "wait": Fault(("waits for the device a call",), "suite.py: waiting"),
    "copy": Fault(("dispatcher operations a call", "memory operations a call"), "suite.py: copying"),
    "loop": Fault(("lines of Python a call",), "suite.py: looping"),
    "leak": Fault(("growth of host memory",), f"suite.py:{LEAKING}"),
    "load": Fault(("cold start", "host memory of a cold start", "GPU memory of a cold start")),
}


def gate(folder: Path, *arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run the gate on the suite of a folder."""
    command = [sys.executable, "-m", "pytest", "-p", "trtgate.plugin", "-p", "no:cacheprovider", "suite.py"]
    return subprocess.run(
        [*command, "-v", "-m", "trtgate_latency", *ASKED, *arguments],
        cwd=folder, env={**os.environ, "FAULT": fault}, capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip


def sentence(run: subprocess.CompletedProcess[str]) -> str:
    """Return what a run says of its case, or the end of what it printed."""
    said = [line for line in run.stdout.splitlines() if line.startswith("served-own-as_is ")]
    return next((line for line in said if any(word in line for word in VERDICTS)), run.stdout[-2000:])


def is_found(name: str, run: subprocess.CompletedProcess[str]) -> bool:
    """Return whether a run fails by a metric of its fault, and names the place."""
    said, fault = sentence(run), FAULTS[name]
    return run.returncode == 1 and any(metric in said for metric in fault.metrics) and fault.place in said


def main() -> None:
    """Record, run everything in turns, and print the table of what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"{', '.join(FAULTS)}; by default all of them")
    parser.add_argument("--times", type=int, default=10, help="that each fault is planted")
    parser.add_argument("--unchanged", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write what every run said to this file")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    faults = [name for name in options.faults or FAULTS if name != "wait" or gpu]
    said: list[tuple[str, int, float, str]] = []
    found: dict[str, list[bool]] = {name: [] for name in (UNCHANGED, *faults)}
    print(f"{describe(detect())}, {machine.cpus()} CPUs", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "suite.py").write_text(SUITE)
        (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
        torch.save(torch.randn(NUMBERS), folder / "weights.pt")
        try:
            recorded = gate(folder, "--trtgate-update-baselines")
            if recorded.returncode:
                raise SystemExit(f"could not record, exit code {recorded.returncode}:\n{recorded.stdout[-3000:]}")
            for number in range(max(options.times, options.unchanged)):
                planted = [*faults * (number < options.times), *[""] * (number < options.unchanged)]
                for fault in planted:
                    start = time.monotonic()
                    run = gate(folder, "--benchmark-compare", fault=fault)
                    seconds = time.monotonic() - start
                    told = is_found(fault, run) if fault else run.returncode != 0
                    found[fault or UNCHANGED].append(told)
                    said.append((fault, run.returncode, seconds, sentence(run)))
                    words = ("found" if told else "missed") if fault else ("red" if told else "not red")
                    print(f"# {number + 1} {fault or UNCHANGED}: {words}, {seconds:.0f} s: {sentence(run)}", flush=True)
        except KeyboardInterrupt:
            print("# interrupted")
    if options.json:
        options.json.write_text(json.dumps(said))
    print("\n| | found and named |\n|---|--:|")
    for fault in faults:
        print(f"| {fault} | {share(found[fault])} |")
    print(f"\nunchanged, red: {share(found[UNCHANGED])}, of {number_of(len(said), 'run')} in all")


if __name__ == "__main__":
    main()
