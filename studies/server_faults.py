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
import tempfile
import time
from pathlib import Path

import gate_runs
import msgspec
import torch
from ab_on_cpu import share

from trtgate.common import machine
from trtgate.common.accelerator import detect
from trtgate.common.text_columns import number_of
from trtgate.report import run_report
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


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run."""

    exit_status: int
    seconds: float
    sentence: str
    """What it says of the case; the end of what it printed where it says nothing."""


def gate(folder: Path, *arguments: str, fault: str = "") -> Ran:
    """Run the gate on the module, with a fault or without one."""
    document = folder / "run.json"
    document.unlink(missing_ok=True)
    start = time.monotonic()
    done = gate_runs.of_suite(
        folder, SUITE, *ASKED, f"--trtgate-report={document}", *arguments, timeout_s=TIMEOUT_S, FAULT=fault
    )
    seconds = time.monotonic() - start
    said = [case.sentence for case in run_report.read(document).cases] if document.exists() else []
    return Ran(exit_status=done.returncode, seconds=seconds, sentence=said[0] if said else done.stdout[-2000:])


def is_found(name: str, run: Ran) -> bool:
    """Return whether a run fails by a metric of its fault, and names the place."""
    fault = FAULTS[name]
    named = any(metric in run.sentence for metric in fault.metrics) and fault.place in run.sentence
    return run.exit_status == 1 and named


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
    runs: list[tuple[str, Ran]] = []
    found: dict[str, list[bool]] = {name: [] for name in (UNCHANGED, *faults)}
    print(f"{describe(detect())}, {machine.cpus()} CPUs", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(torch.randn(NUMBERS), folder / "weights.pt")
        try:
            recorded = gate(folder, "--trtgate-update-baselines")
            if recorded.exit_status:
                raise SystemExit(f"could not record, exit code {recorded.exit_status}: {recorded.sentence}")
            for number in range(max(options.times, options.unchanged)):
                for fault in [*faults * (number < options.times), *[""] * (number < options.unchanged)]:
                    run = gate(folder, "--benchmark-compare", fault=fault)
                    told = is_found(fault, run) if fault else run.exit_status != 0
                    found[fault or UNCHANGED].append(told)
                    runs.append((fault, run))
                    words = ("found" if told else "missed") if fault else ("red" if told else "not red")
                    print(
                        f"# {number + 1} {fault or UNCHANGED}: {words}, {run.seconds:.0f} s: {run.sentence}", flush=True
                    )
        except KeyboardInterrupt:
            print("# interrupted")
    if options.json:
        options.json.write_bytes(msgspec.json.encode(runs))
    print("\n| | found and named |\n|---|--:|")
    for fault in faults:
        print(f"| {fault} | {share(found[fault])} |")
    print(f"\nunchanged, red: {share(found[UNCHANGED])}, of {number_of(len(runs), 'run')} in all")


if __name__ == "__main__":
    main()
