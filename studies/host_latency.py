"""Where does the spread of host latency come from, and which way to run a process or to read its calls makes it small?

    python studies/host_latency.py [--device cuda] [--processes 10] [--rounds 6] [--json FILE] [CONDITION …]

For each condition so many fresh processes make the same module and take turns in calling it, in random order within a
round, all conditions interleaved; one process is at work at a time. A reading is a window of calls; log readings are
taken apart into process, round and rest (crossed random effects without repetition; e.g. Searle, Casella and McCulloch,
Variance Components, ch. 4). `pair` is the spread of what a pair of fresh processes would tell of two equal modules,
when all rounds are averaged: √2 times process and rest.

With `--pairs N` N fresh pairs of processes, with and without pinning (either side to a CPU, both to one), take turns as
those of the gate do: quadruples ABBA or BAAB of windows of several lengths, d = ½·Σ ln(B/A). What it shows is how far
quadruples of a pair and means of pairs lie apart, and which change six pairs would show at alpha 0.01 in 90 of 100
tries.

Prints tables with versions and machine; intervals are chi-squared. Needs a machine that nothing else uses.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import math
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from states_tables import deviation

from trtgate import verdict
from trtgate.timing.cpu_state import kept_on

NO_RANDOM_ADDRESSES = 0x0040000
"""ADDR_NO_RANDOMIZE of personality(2)."""
LAYERS = 30
WINDOWS_S = (0.005, 0.02, 0.1)
PAIRED = ("as it comes", "pinned to a CPU", "both on one CPU", "no collection of garbage")
WAYS: dict[str, Callable[[Sequence[float]], float]] = {
    "minimum": min,
    "5th percentile": lambda us: float(np.percentile(us, 5)),
    "quartile": lambda us: float(np.percentile(us, 25)),
    "median": statistics.median,
    "mean": statistics.fmean,
}


class Condition(NamedTuple):
    """How a process is started, and what it does before it is measured."""

    environment: tuple[str, ...] = ()
    fixed_addresses: bool = False
    pinned: bool = False
    one_cpu: bool = False
    """Whether both sides of a pair take their turns on one CPU, which has no pause then."""
    no_gc: bool = False
    warm_s: float = 0.2
    beside: bool = False
    """Whether another process exports a model on the CPU meanwhile, as a gate could that builds while it times."""


HASHES = ("PYTHONHASHSEED=0",)
PAGES = ("GLIBC_TUNABLES=glibc.malloc.hugetlb=1", "THP_MEM_ALLOC_ENABLE=1")
CONDITIONS = {
    "as it comes": Condition(),
    "pinned to a CPU": Condition(pinned=True),
    "both on one CPU": Condition(one_cpu=True),
    "no collection of garbage": Condition(no_gc=True),
    "the same hashes": Condition(environment=HASHES),
    "the same addresses": Condition(fixed_addresses=True),
    "huge pages": Condition(environment=PAGES),
    "a warm allocator": Condition(warm_s=2.0),
    "beside an export": Condition(beside=True),
    "all of it": Condition(HASHES + PAGES, fixed_addresses=True, pinned=True, no_gc=True, warm_s=2.0),
}


class Exporter:
    """A process that exports a model on the CPU, again and again, while it is let."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--export"],
            stdout=subprocess.PIPE,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has imported, and exported once
        self._process.send_signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Within: it exports."""
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def export() -> None:
    """Export a model without end, and say so after the first time."""
    import torch
    import torchvision

    module = torchvision.models.resnet50(weights=None).eval()
    given, first = (torch.zeros(1, 3, 224, 224),), True
    while True:
        torch.export.export(module, given)
        if first:
            print("ready", flush=True)
        first = False


class Process:
    """A process that calls the module when it is asked to, beside an exporter if there is one."""

    def __init__(
        self, condition: Condition, device: str, exporter: Exporter | None = None, cpu: int | None = None
    ) -> None:
        self._exporter = exporter
        if condition.pinned:
            cpu = random.choice(sorted(os.sched_getaffinity(0)))
        options = {
            "device": device, "no_gc": condition.no_gc, "cpu": cpu, "always": condition.pinned,
            "warm_s": condition.warm_s,
        }  # fmt: skip
        before = _fixed_addresses if condition.fixed_addresses else None
        environment = {**os.environ, **dict(one.split("=", 1) for one in condition.environment)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment, preexec_fn=before,
        )  # fmt: skip

    def ask(self, seconds: float) -> dict[str, Any]:
        """Call the module for so long; returns what `WAYS` read of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._exporter.at_work() if self._exporter else contextlib.nullcontext():
            print(seconds, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process ended; what it said is above")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def _fixed_addresses() -> None:
    if ctypes.CDLL(None).personality(NO_RANDOM_ADDRESSES) < 0:
        raise OSError("the kernel does not let addresses be the same")


def serve(options: dict[str, Any]) -> None:
    """Make the module, warm it up, and read windows of calls until nothing more is asked."""
    import gc

    import torch

    device = options["device"]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers = [layer for _ in range(LAYERS) for layer in (torch.nn.Linear(32, 32), torch.nn.ReLU())]
    module, inputs = torch.nn.Sequential(*layers).eval().to(device), torch.randn(4, 32).to(device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    if options["always"]:
        os.sched_setaffinity(0, {options["cpu"]})
    with torch.no_grad():
        _window(lambda: module(inputs), wait, options["warm_s"])
        if options["no_gc"]:
            gc.collect()
            gc.freeze()
            gc.disable()
        for line in sys.stdin:
            with kept_on(options["cpu"]):
                # whoever was at work before left other things in the caches
                _window(lambda: module(inputs), wait, float(line) / 4)
                host_us, enqueue_us = _window(lambda: module(inputs), wait, float(line))
            found = {
                "host": {way: read(host_us) for way, read in WAYS.items()},
                "enqueue": {way: read(enqueue_us) for way, read in WAYS.items()},
                "calls": len(host_us),
            }
            print(json.dumps(found), flush=True)


def _window(call: Callable[[], object], wait: Callable[[], object], seconds: float) -> tuple[list[float], list[float]]:
    from trtgate.timing.host_clock import host_latency

    return host_latency(call, wait, seconds)  # type: ignore[arg-type]


class Components(NamedTuple):
    """Standard deviations of logs."""

    process: float
    round: float
    rest: float


def components(log_us: np.ndarray) -> Components:
    """Return the variance components of readings, (processes, rounds): what either adds, and the rest."""
    processes, rounds = log_us.shape
    of_process, of_round = log_us.mean(axis=1), log_us.mean(axis=0)
    left = log_us - of_process[:, None] - of_round[None, :] + log_us.mean()
    rest = float((left**2).sum()) / ((processes - 1) * (rounds - 1))
    process = max(0.0, float(of_process.var(ddof=1)) - rest / rounds)
    of_time = max(0.0, float(of_round.var(ddof=1)) - rest / processes)
    return Components(math.sqrt(process), math.sqrt(of_time), math.sqrt(rest))


def main() -> None:
    """Start all processes, let them take turns, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conditions", nargs="*", metavar="CONDITION", help=f"of: {', '.join(CONDITIONS)}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--window", type=float, default=0.1, help="seconds a reading")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="pairs that take turns, instead")
    parser.add_argument("--quadruples", type=int, default=40, help="of a pair and a length of window")
    parser.add_argument("--json", type=Path, help="also write all readings to this file")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        export()
    if options.serve:
        serve(json.loads(options.serve))
        return
    if unknown := set(options.conditions) - CONDITIONS.keys():
        parser.error(f"no such condition: {', '.join(sorted(unknown))}")
    if options.pairs:
        in_pairs(options)
        return
    names = options.conditions or [name for name, one in CONDITIONS.items() if not one.one_cpu]
    readings = measured(options, names)
    if options.json:
        options.json.write_text(json.dumps(readings))
    report(readings, options)


def measured(options: argparse.Namespace, names: Iterable[str]) -> dict[str, list[list[dict[str, Any]]]]:
    """Return the readings of each condition, (processes, rounds)."""
    exporter = Exporter() if any(CONDITIONS[name].beside for name in names) else None
    processes = [
        (name, Process(CONDITIONS[name], options.device, exporter if CONDITIONS[name].beside else None))
        for name in names for _ in range(options.processes)
    ]  # fmt: skip
    read: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(processes))}
    try:
        for _, process in processes:
            process.ask(0.01)  # waits until it is warm
        for number in range(options.rounds):
            began = time.perf_counter()
            for one in random.sample(range(len(processes)), len(processes)):
                read[one].append(processes[one][1].ask(options.window))
            print(f"# round {number + 1}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        for _, process in processes:
            process.close()
        if exporter is not None:
            exporter.close()
    return {name: [read[number] for number, (of, _) in enumerate(processes) if of == name] for name in names}


Read = dict[tuple[str, str, float, str], list[np.ndarray]]
"""Condition, metric, seconds of a window, what is read of it → the quadruples of each pair."""


def in_pairs(options: argparse.Namespace) -> None:
    """Let fresh pairs of equal processes take turns, and print how far apart what they say lies.

    Ctrl-C ends it early, with the pairs that were done.
    """
    rows: Read = {}
    with contextlib.suppress(KeyboardInterrupt):
        for number in range(options.pairs):
            read_pairs(options.conditions or PAIRED, options, rows)
            print(f"# pair {number + 1}", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps([[*key, [list(d) for d in of]] for key, of in rows.items()]))
    print(machine(options.device))
    print(f"{options.quadruples} quadruples of each pair and length of window\n")
    print("| | | pairs | window | reading | between quadruples | between pairs' means (95 %) | six pairs see |")
    print("|---|---|--:|--:|---|--:|--:|--:|")
    for (name, metric, window, way), of in rows.items():
        means = [float(d.mean()) for d in of]
        if len(means) < 2:
            continue
        pairs, alpha = verdict.LOOKS[0], verdict.FAMILY_ALPHA / len(verdict.LOOKS)
        quantiles = verdict.quantile(alpha, pairs - 1) + verdict.quantile(0.1, pairs - 1)
        sees = quantiles * statistics.stdev(means) / math.sqrt(pairs)
        within = math.sqrt(statistics.fmean(float(d.var(ddof=1)) for d in of))
        spread = f"{within:.2%} | {deviation(means)} | {sees:.1%}"
        print(f"| {name} | {metric} | {len(means)} | {window * 1e3:.0f} ms | {way} | {spread} |")


def read_pairs(conditions: Sequence[str], options: argparse.Namespace, rows: Read) -> None:
    """Start a pair of each condition, which import side by side, and read quadruples of all of them in turns.

    So what the machine is like at the moment is alike for all conditions.
    """
    metrics = ("host", "enqueue") if options.device == "cuda" else ("host",)
    cpu = random.choice(sorted(os.sched_getaffinity(0)))
    of = {name: CONDITIONS[name] for name in conditions}
    pairs = {
        name: [Process(one, options.device, cpu=cpu if one.one_cpu else None) for _ in range(2)]
        for name, one in of.items()
    }
    try:
        for process in (one for pair in pairs.values() for one in pair):
            process.ask(0.01)  # it has imported, and sleeps in a read until it is asked again
        for window in WINDOWS_S:
            found: dict[str, list[list[list[dict[str, Any]]]]] = {name: [] for name in conditions}
            for _ in range(options.quadruples):
                for name in random.sample(list(conditions), len(conditions)):
                    found[name].append(quadruple(pairs[name], window))
            for name, metric, way in itertools.product(conditions, metrics, WAYS):
                d = np.asarray([d_of(one, metric, way) for one in found[name]])
                rows.setdefault((name, metric, window, way), []).append(d)
    finally:
        for process in (one for pair in pairs.values() for one in pair):
            process.close()


def quadruple(pair: Sequence[Process], window_s: float) -> list[list[dict[str, Any]]]:
    """Return what both sides read, twice each, in the order ABBA or BAAB."""
    order = random.choice(((0, 1, 1, 0), (1, 0, 0, 1)))
    read: list[list[dict[str, Any]]] = [[], []]
    for side in order:
        read[side].append(pair[side].ask(window_s))
    return read


def d_of(read: list[list[dict[str, Any]]], metric: str, way: str) -> float:
    """Return d of a quadruple."""
    base, candidate = (np.asarray([one[metric][way] for one in side]) for side in read)
    return float(verdict.differences(base, candidate))


def machine(device: str) -> str:
    """Return what the figures depend on."""
    import torch

    from trtgate.common.accelerator import detect

    name = detect().name if device == "cuda" else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} CPUs, torch {torch.__version__}, Python {platform.python_version()}"


def report(readings: dict[str, list[list[dict[str, Any]]]], options: argparse.Namespace) -> None:
    """Print the tables."""
    print(machine(options.device))
    print(f"{options.processes} processes, {options.rounds} rounds of {options.window} s")
    for metric in ("host", "enqueue") if options.device == "cuda" else ("host",):
        print(f"\n{metric}: by condition, median of a window\n")
        table((name, of, metric, "median") for name, of in readings.items())
        first, of = next(iter(readings.items()))
        print(f"\n{metric}: by what is read of a window, {first}\n")
        table((way, of, metric, way) for way in WAYS)


def table(rows: Iterable[tuple[str, list[list[dict[str, Any]]], str, str]]) -> None:
    """Print one row each: what it is called, readings, which metric and which way to read a window."""
    print("| | µs | between processes' means (95 %) | process | round | rest | pair |\n|---|--:|--:|--:|--:|--:|--:|")
    for name, of, metric, way in rows:
        log_us = np.log([[one[metric][way] for one in row] for row in of])
        found, means = components(log_us), list(log_us.mean(axis=1))
        pair = math.sqrt(2 * (found.process**2 + found.rest**2 / log_us.shape[1]))
        print(
            f"| {name} | {math.exp(log_us.mean()):.1f} | {deviation(means)} | {found.process:.2%} | "
            f"{found.round:.2%} | {found.rest:.2%} | {pair:.2%} |"
        )


if __name__ == "__main__":
    main()
