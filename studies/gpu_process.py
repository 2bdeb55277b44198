"""A process on the GPU that a study asks for things: graphs, replays, and what brings the GPU into a state.

`Remote` starts one and asks it; everything else here runs inside. A block is a group of back-to-back replays of one
CUDA graph between one pair of events, queued behind a spin kernel so that the host is ahead; its mean is one reading.
All times in microseconds, all waits in seconds, unless a name says otherwise. It is longer than other files: graphs,
streams and what was loaded belong to one process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch"])  # its import takes seconds, and touches no GPU
SPIN_CYCLES = 400_000
BLOCK_S = 0.005
PROBE, PROBE_NODES, PROBE_REPLAYS = "probe", 400, 3
"""The probe is a chain of tiny kernels: its latency is what launching a kernel costs, about 1 ms for 1200 of them."""
MIB = 1 << 20


class Remote:
    """A process on the GPU, seen from outside. Raises RuntimeError with the process's traceback where it fails."""

    def __init__(self, **options: Any) -> None:
        self._end, other = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=serve, args=(other, options), daemon=True)
        self._process.start()
        other.close()

    def send(self, method: str, /, **arguments: Any) -> None:
        """Ask for something, and go on meanwhile."""
        self._end.send((method, arguments))

    def receive(self, timeout_s: float = 300) -> Any:
        """Wait for the answer."""
        if not self._end.poll(timeout_s):
            raise RuntimeError(f"no answer from a process on the GPU within {timeout_s:.0f} s")
        failed, value = self._end.recv()
        if failed:
            raise RuntimeError(value)
        return value

    def ask(self, method: str, /, **arguments: Any) -> Any:
        """Ask for something and wait for the answer: what the method of `GpuProcess` returns."""
        self.send(method, **arguments)
        return self.receive()

    def close(self) -> None:
        """End the process, and with it its context on the GPU."""
        self._process.kill()
        self._process.join()
        self._end.close()


@contextlib.contextmanager
def remotes(count: int, **options: Any) -> Iterator[list[Remote]]:
    """Within: so many processes; ended afterwards."""
    made = [Remote(**options) for _ in range(count)]
    try:
        yield made
    finally:
        for remote in made:
            remote.close()


@contextlib.contextmanager
def gate_states() -> Iterator[str]:
    """Within: a process that sets the state of the streams, as a run of the gate has; gives its name."""
    from trtgate.common.accelerator import detect
    from trtgate.timing.context_switch import ContextSwitcher

    switcher = ContextSwitcher(detect().uuid)
    try:
        yield switcher.name
    finally:
        switcher.close()


def serve(end: Connection, options: dict[str, Any]) -> None:
    """Make a `GpuProcess` and answer until the pipe closes."""
    process: GpuProcess | None = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            method, arguments = end.recv()
            try:
                process = process or GpuProcess(**options)
                end.send((False, getattr(process, method)(**arguments)))
            except Exception:
                end.send((True, traceback.format_exc()))


class GpuProcess:
    """Graphs by name, and the streams to replay them on.

    With `one_stream` everything in this process, torch_tensorrt included, runs on one stream that is not the default
    one. `connections` is CUDA_DEVICE_MAX_CONNECTIONS, `switcher` and
    `streams` what trtgate's clock sets the GPU's state with, `suite` a file with the cases instead of the zoo.
    """

    def __init__(
        self, *, one_stream: bool = False, connections: int | None = None, switcher: str = "", streams: str = "one",
        suite: str = "",
    ) -> None:  # fmt: skip
        self._switcher, self._measured_streams = switcher, streams
        self._source = case_source(suite)
        if connections is not None:
            os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] = str(connections)
        import torch

        self._torch = torch
        cuda = torch.cuda
        own = cuda.Stream()
        self._streams = {
            "default": own if one_stream else cuda.default_stream(),
            "own": own,
            "capture": own if one_stream else cuda.Stream(),
            "other": own if one_stream else cuda.Stream(),
            "another": cuda.Stream(),
        }
        cuda.set_stream(self._streams["default"])
        self._spun, self._start, self._end = (cuda.Event(enable_timing=True) for _ in range(3))
        self._mhz = 0.0
        self._graphs: dict[str, Any] = {}
        self._us: dict[str, float] = {}
        self._tiny, self._small = torch.zeros(32, device="cuda"), torch.zeros(32, device="cuda")
        self._pinned = torch.zeros(32, pin_memory=True)
        self._square = torch.randn(2048, 2048, device="cuda", dtype=torch.half)
        self._long = torch.zeros(64 * MIB, device="cuda", dtype=torch.uint8)
        self._work: dict[str, Callable[[], object]] = {
            "matmul": lambda: self._square @ self._square,
            "copy": lambda: self._long.add_(1),
        }
        for work in self._work.values():
            work()
        self._worker: Any = None
        self._aside: Any = None
        """What another thread loaded."""
        cuda.synchronize()
        gc.collect()
        gc.freeze()

    # graphs

    def versions(self) -> dict[str, Any]:
        """Return what the figures depend on."""
        import pynvml

        torch = self._torch
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")  # the one in use
        found = {
            "gpu": torch.cuda.get_device_name(), "uuid": pynvml.nvmlDeviceGetUUID(handle), "torch": torch.__version__,
            "cuda": torch.version.cuda, "driver": pynvml.nvmlSystemGetDriverVersion(),
            "sm_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "temperature_c": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        }  # fmt: skip
        with contextlib.suppress(ImportError):
            import importlib.metadata

            for package in ("torch_tensorrt_rtx", "torch_tensorrt", "tensorrt_rtx_cu13_libs"):
                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    found[package] = importlib.metadata.version(package)
        return found

    def chain(self, name: str, nodes: int, kernel: str = "tiny", size: int = 0) -> float:
        """Capture a chain of `nodes` kernels of one kind; returns its first latency.

        `tiny` adds to 32 numbers; `spin` runs for `size` cycles; `add` adds to `size` numbers; `matmul` multiplies two
        matrices of `size` rows in half precision.
        """
        torch = self._torch
        if kernel == "tiny":
            one: Callable[[], object] = lambda: self._tiny.add_(1)  # noqa: E731 - one of four
        elif kernel == "spin":
            one = lambda: torch.cuda._sleep(size)  # noqa: E731
        elif kernel == "add":
            numbers = torch.zeros(size, device="cuda")
            one = lambda: numbers.add_(1)  # noqa: E731
        else:
            square = torch.randn(size, size, device="cuda", dtype=torch.half)
            product = torch.empty_like(square)
            one = lambda: torch.mm(square, square, out=product)  # noqa: E731
        return self._capture(name, lambda: [one() for _ in range(nodes)])

    def eager(self, name: str, model: str) -> float:
        """Capture a torchvision model as PyTorch runs it, in half precision, batch 1."""
        import torchvision

        torch = self._torch
        module = torchvision.models.get_model(model, weights=None).eval().half().cuda()
        images = torch.randn(1, 3, 224, 224, device="cuda", dtype=torch.half)
        return self._capture(name, lambda: module(images))

    def _capture(self, name: str, call: Callable[[], object], *, keep: bool = False) -> float:
        torch = self._torch
        graph = torch.cuda.CUDAGraph(keep_graph=True) if keep else torch.cuda.CUDAGraph()
        with torch.no_grad():
            for _ in range(2):
                call()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, stream=self._streams["capture"]):
                kept = call()
        if keep:
            graph.instantiate()
        self._graphs[name] = (graph, kept, call)  # the call holds what the graph reads
        self._us[name] = 1000.0
        for _ in range(3):
            self._us[name] = self._block(name, 2)
        return self._us[name]

    def drop(self, prefix: str) -> None:
        """Free the graphs whose names begin so."""
        for name in [name for name in self._graphs if name.startswith(prefix)]:
            self._graphs.pop(name)[0].reset()
        self._torch.cuda.empty_cache()

    def shape(self, name: str) -> dict[str, int]:
        """Return how many kernels, other nodes and edges a graph has that was captured to be looked at."""
        graph = ctypes.c_void_p(self._graphs[name][0].raw_cuda_graph())
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_size_t(0)
        driver.cuGraphGetNodes(graph, None, ctypes.byref(count))
        nodes = (ctypes.c_void_p * count.value)()
        driver.cuGraphGetNodes(graph, nodes, ctypes.byref(count))
        kinds = []
        for node in nodes:
            kind = ctypes.c_int(-1)
            driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind))
            kinds.append(kind.value)
        edges = ctypes.c_size_t(0)
        driver.cuGraphGetEdges(graph, None, None, ctypes.byref(edges))
        return {"kernels": kinds.count(0), "others": len(kinds) - kinds.count(0), "edges": edges.value}

    # replays

    def _block(self, name: str, replays: int = 0) -> float:
        replay = self._graphs[name][0].replay
        replays = replays or self._replays(name)
        self._torch.cuda._sleep(SPIN_CYCLES // 8)  # until the next kernel is queued, else its launch is timed too
        self._spun.record()
        self._torch.cuda._sleep(SPIN_CYCLES)
        self._start.record()
        for _ in range(replays):
            replay()
        self._end.record()
        self._end.synchronize()
        self._mhz = SPIN_CYCLES / self._spun.elapsed_time(self._start) / 1e3
        return float(self._start.elapsed_time(self._end)) * 1e3 / replays

    def _replays(self, name: str, block_s: float = BLOCK_S) -> int:
        return max(1, round(block_s * 1e6 / self._us[name]))

    def blocks(self, name: str, seconds: float, block_s: float = BLOCK_S) -> list[tuple[float, float, float]]:
        """Replay without a gap for so long; returns (seconds since the start, latency, SM clock in MHz) of each block.

        The clock is what the spin kernel before the block counts.
        """
        replays, began = self._replays(name, block_s), time.perf_counter()
        found = []
        while (now := time.perf_counter() - began) < seconds:
            found.append((now, self._block(name, replays), self._mhz))
        self._us[name] = found[-1][1]
        return found

    def settled(self, name: str, seconds: float = 0.06) -> float:
        """Replay for so long and return the mean of the second half's blocks."""
        found = [us for _, us, _ in self.blocks(name, seconds)]
        return statistics.fmean(found[len(found) // 2 :])

    def _probe(self) -> float:
        return self._block(PROBE, PROBE_REPLAYS)

    # states

    def work(self, seconds: float, kind: str = "matmul") -> None:
        """Keep the GPU busy with large kernels for so long."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for _ in range(8):
                self._work[kind]()
            self._torch.cuda.synchronize()

    def work_now_and_then(self, seconds: float, every_s: float = 0.01) -> None:
        """Use the GPU for a moment every `every_s`, for so long: another process that is active meanwhile."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            self._work["matmul"]()
            self._torch.cuda.synchronize()
            time.sleep(every_s)

    def touch(self, what: str = "kernels", count: int = 1) -> None:
        """Let another stream of this process do something: `nothing`, an `event`, a `copy`, or some `kernels`."""
        torch, other = self._torch, self._streams["other"]
        with torch.cuda.stream(other):
            if what == "event":
                torch.cuda.Event().record(other)
            elif what == "copy":
                self._small.copy_(self._pinned, non_blocking=True)
            elif what == "kernels":
                for _ in range(count):
                    self._small.add_(1)
        torch.cuda.synchronize()

    def after_touch(self, stream: str, what: str, count: int, name: str, seconds: float) -> tuple[float, float]:
        """Return a graph's latency on a stream, before and after another stream did something."""
        with self._torch.cuda.stream(self._streams[stream]):
            before = self.settled(name, seconds)
            self.touch(what, count)
            return before, self.settled(name, seconds)

    def after_reset(
        self, *, touched: bool, settled_s: float, seconds: float = 0.15
    ) -> list[tuple[float, float, float]]:
        """Return the probe's blocks of 1 ms since another stream was touched, or was not, after `settled_s` of use."""
        if settled_s:
            self.blocks(PROBE, settled_s)
        if touched:
            self.touch(count=10)
        return self.blocks(PROBE, seconds, block_s=0.001)

    def after_idle(self, idle_s: float, name: str, seconds: float = 0.004) -> float:
        """Leave the GPU alone for so long, then read a graph in one short block."""
        self._torch.cuda.synchronize()
        time.sleep(idle_s)
        return self._block(name, self._replays(name, seconds))

    def trajectory(self, name: str, before: str, amount: float, seconds: float) -> list[tuple[float, float, float]]:
        """Return the blocks of a replay that begins after the GPU did something else: idling, or a burst."""
        self._torch.cuda.synchronize()
        if before == "idle":
            time.sleep(amount)
        elif before == "capture":
            self.chain("thrown away", 100)
            self.drop("thrown away")
        elif before != "partner":
            self.work(amount, before)
        return self.blocks(name, seconds)

    def read_all(self, names: list[str], seconds: float) -> dict[str, float]:
        """Return the settled latencies of several graphs, in this order, and the probe's before and after."""
        found = {"before": self._probe()}
        found |= {name: self.settled(name, seconds) for name in names}
        return found | {"after": self._probe()}

    # compiled models

    def build(self, case_id: str, folder: str) -> float:
        """Build a case of the zoo and store it; returns the build time in seconds, as the gate judges it."""
        from trtgate.compiling import build_or_load

        case = self._source.load().cases[case_id]
        made = build_or_load.build_or_load(case, "cuda", Path(folder), None, lambda _step: None)
        return float(made.build.build_s)

    def load(self, case_id: str, folder: str | None) -> float:
        """Load a case that was stored, instead of the one before; returns the seconds that it took.

        Without a folder the process builds it.
        """
        from trtgate.common.accelerator import detect
        from trtgate.launches import messages
        from trtgate.launches.build_turn import BuildTurn
        from trtgate.launches.worker_state import Worker

        if self._worker is None:
            uuid = detect().uuid
            hello = messages.Hello(
                source=self._source, device="cuda", uuid=uuid, sys_path=[], switcher=self._switcher,
                streams=self._measured_streams,
            )  # fmt: skip
            self._worker = Worker(hello, BuildTurn(lambda: 0.0))
            gc.freeze()
        start = time.perf_counter()
        self.drop("capture")
        self._worker.load(messages.Load(case_id=case_id, artifact=folder))
        return time.perf_counter() - start

    def capture_loaded(self, seeds: list[int], *, keep: bool = False) -> list[float]:
        """Capture the loaded case once a seed, behind padding of a seeded size, its inputs placed anew."""
        call, found = self._worker.inference, []
        for number, seed in enumerate(seeds):
            name = f"capture {number}"
            with self._padding(random.Random(seed)):
                call.place_inputs()
                inputs = call.inputs
                found.append(self._capture(name, call, keep=keep))
            graph, output, _ = self._graphs[name]
            self._graphs[name] = (graph, output, inputs)
        return found

    @contextlib.contextmanager
    def _padding(self, rng: random.Random) -> Iterator[None]:
        torch = self._torch
        taken = [torch.empty(rng.randrange(1, 33) * 2 * MIB, dtype=torch.uint8, device="cuda") for _ in range(3)]
        taken.append(torch.empty(rng.randrange(1, 1024) * 512, dtype=torch.uint8, device="cuda"))
        yield
        del taken

    def plateau(
        self, seeds: list[int], rounds: int, order: int, *, touched: bool, warm_s: float = 0.5
    ) -> list[dict[str, Any]]:
        """Make a capture for each seed first, warm up, and read their blocks in turns, a probe before and after each.

        With `touched` another stream does something before each block. Returns rows of {"capture", "us", "before",
        "after", "mhz"} in the order in which they were read; `order` seeds that.
        """
        rng = random.Random(order)
        self.capture_loaded(seeds)
        if touched:
            self.touch(count=10)
        self.blocks("capture 0", warm_s)
        found = []
        for _ in range(rounds):
            for number in rng.sample(range(len(seeds)), len(seeds)):
                if touched:
                    self.touch(count=10)
                found.append({"capture": number, **self._between_probes(f"capture {number}")})
        return found

    def _between_probes(self, name: str) -> dict[str, float]:
        """Read a block with the probe before and after it and a spin kernel, all queued at once."""
        torch, replays = self._torch, self._replays(name)
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(6)]
        probe, graph = self._graphs[PROBE][0].replay, self._graphs[name][0].replay
        torch.cuda._sleep(SPIN_CYCLES)
        marks[0].record()
        for mark, replay, count in zip(
            marks[1:4], (probe, graph, probe), (PROBE_REPLAYS, replays, PROBE_REPLAYS), strict=True
        ):
            for _ in range(count):
                replay()
            mark.record()
        marks[4].record()
        torch.cuda._sleep(2 * SPIN_CYCLES)
        marks[5].record()
        marks[5].synchronize()
        before, block, after, _, spun = (a.elapsed_time(b) * 1e3 for a, b in pairwise(marks))
        return {
            "before": before / PROBE_REPLAYS, "us": block / replays, "after": after / PROBE_REPLAYS,
            "mhz": 2 * SPIN_CYCLES / spun,
        }  # fmt: skip

    def today(self, seed: int) -> list[float]:
        """Return the captures of a launch as trtgate's clock reads them."""
        import msgspec

        from trtgate.launches import messages
        from trtgate.timing.plans import ON_GPU

        plan = msgspec.structs.replace(ON_GPU, host_s=0.0, tail_calls=0)
        read = self._worker.measure(messages.Measure(plan=plan, seed=seed))
        return [statistics.median(capture.blocks_us) for capture in read.captures if capture.blocks_us]

    def clocks(self, seed: int, *, others: bool, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Time the loaded case with trtgate's clock, as a launch does, and, with `others`, in the usual ways.

        `plan` is what differs from the plan of a launch.
        """
        from trtgate.launches import messages
        from trtgate.timing.plans import ON_GPU
        from trtgate.verdict import launch_mean

        torch = self._torch
        asked = messages.Measure(plan=msgspec.structs.replace(ON_GPU, **(plan or {})), seed=seed)
        turn = self._worker.measure(asked)
        captures = [statistics.median(one.blocks_us) for one in turn.captures if one.blocks_us]
        found: dict[str, Any] = {
            "trtgate": math.exp(launch_mean([math.log(us) for us in captures])) if captures else math.nan,
            "captures_us": captures, "sm_mhz": [one.sm_mhz for one in turn.captures], "spin_mhz": turn.spin_mhz,
            "probe_us": turn.probe_us, "seconds": turn.seconds, "steady": turn.steady, "note": turn.note,
            "void": [reason for one in turn.captures for reason in one.void],
        }  # fmt: skip
        if others:
            import triton.testing

            call = self._worker.inference
            with torch.no_grad():
                found["do_bench"] = triton.testing.do_bench(call, return_mode="median") * 1e3
                with torch.cuda.stream(torch.cuda.Stream()):
                    found["do_bench_cudagraph"] = triton.testing.do_bench_cudagraph(call, return_mode="median") * 1e3
                torch.cuda.synchronize()
                found["nvbench"] = self._nvbench()
                found["pytest-benchmark's way"] = self._host_clock(call)
        return found

    def _nvbench(self) -> float:
        """Return nvbench's batch mean over replays of a capture, NaN where `cuda-bench` is not installed."""
        try:
            from cuda import bench
        except ImportError:
            return math.nan
        torch = self._torch
        self.capture_loaded([0])
        replay = self._graphs["capture 0"][0].replay

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
        self.drop("capture")
        return float(next(item["value"] for item in summary["data"] if item["name"] == "value")) * 1e6

    def _host_clock(self, call: Callable[[], object]) -> float:
        """Return the median of call + synchronize on the host's clock, as a test of pytest-benchmark has it."""
        times = []
        for _ in range(300):
            start = time.perf_counter()
            call()
            self._torch.cuda.synchronize()
            times.append((time.perf_counter() - start) * 1e6)
        return statistics.median(times)

    def queued(self, seed: int, streams: str) -> dict[str, Any]:
        """Time the loaded case by queued events, as a launch does where no graph can be captured.

        `streams` is the state that is set before, and verified beside, every block: "one" with all on one stream,
        "many", or empty, for none.
        """
        from trtgate.timing import measuring_loop
        from trtgate.timing.cuda_event_clock import CudaEventsClock
        from trtgate.timing.device_state import NO_STATE, ONE, DeviceState
        from trtgate.timing.plans import ON_GPU
        from trtgate.timing.stream_state import StreamState
        from trtgate.verdict import launch_mean

        worker, call = self._worker, self._worker.inference
        began = time.perf_counter()
        own = StreamState(worker.state.spin, streams, self._switcher)
        state: DeviceState = own if streams else NO_STATE
        with own.on_stream() if streams == ONE else contextlib.nullcontext():
            clock = CudaEventsClock(call, worker.state.spin)
            read = measuring_loop.measure(
                clock, ON_GPU, worker.monitor.watch, lambda _capture: call.restore(), state=state,
                rng=random.Random(seed),
            )  # fmt: skip
        captures = [statistics.median(one.blocks_us) for one in read.captures if one.blocks_us]
        return {
            "us": math.exp(launch_mean([math.log(us) for us in captures])) if captures else math.nan,
            "captures_us": captures, "steady": read.steady, "problem": read.problem,
            "void": [reason for one in read.captures for reason in one.void],
            "seconds": time.perf_counter() - began,
        }  # fmt: skip

    def place_weights(self, seed: int) -> None:
        """Copy weights and buffers of the loaded module, one of PyTorch's, to other places in memory."""
        torch, rng, module = self._torch, random.Random(seed), self._worker.inference.compiled.run
        torch.cuda.empty_cache()
        padding = []
        for tensor in (*module.parameters(), *module.buffers()):
            padding.append(torch.empty(rng.randrange(1, 4096) * 512, dtype=torch.uint8, device="cuda"))
            tensor.data = tensor.data.clone()
        torch.cuda.synchronize()

    def turn(self, seed: int, *, after_other: bool) -> dict[str, Any]:
        """Return what one turn of a quadruple reads, as `trtgate ab` does it; the first makes the captures.

        `after_other` is what a pair says of a turn that follows the other side's: then the warm-up waits.
        """
        from trtgate.launches import messages
        from trtgate.timing.plans import PAIR_ON_GPU, WARM_UP_ON_GPU

        if self._worker._timer is None:
            self._worker.measure(messages.Measure(plan=WARM_UP_ON_GPU, seed=seed))
        plan = msgspec.structs.replace(PAIR_ON_GPU, after_other=after_other)
        turn = self._worker.measure(messages.Measure(plan=plan, seed=seed))
        us = statistics.fmean(capture.blocks_us[0] for capture in turn.captures)
        return {"us": us, "steady": turn.steady, "seconds": turn.seconds}

    def load_meanwhile(
        self, name: str, case_id: str, folder: str, seconds: float, stream: str
    ) -> list[tuple[float, float, bool]]:
        """Replay a graph while another thread loads a case; returns (seconds, latency, whether it was loading)."""
        from trtgate.compiling import building

        loading = threading.Event()

        def load() -> None:
            with self._torch.cuda.stream(self._streams[stream]):
                self._aside = building.load(self._source.load().cases[case_id], Path(folder), "cuda")
            loading.clear()

        thread, began = threading.Thread(target=load), time.perf_counter()
        found = []
        while (now := time.perf_counter() - began) < seconds or loading.is_set():
            if thread.ident is None and now > seconds / 2:
                loading.set()
                thread.start()
            found.append((now, self._block(name), loading.is_set()))
        thread.join()
        after = [(now, us, False) for now, us, _ in self.blocks(name, 0.2)]
        return found + after

    def serve_calls(self, stream: str, calls: int) -> float:
        """Call the loaded case again and again as a server does, on a stream; returns what the probe settles on then.

        One reading would not do: on an H100 the slow state begins 8 ms after a context switch at the earliest.
        """
        call = self._worker.inference
        with self._torch.cuda.stream(self._streams[stream]):
            for _ in range(calls):
                call()
                self._torch.cuda.synchronize()
            return self.settled(PROBE)

    def queued_calls(self, stream: str, batches: int = 10, calls: int = 4) -> float:
        """Return the device time of one call without a graph: the median of batches queued behind a spin kernel."""
        torch, call, found = self._torch, self._worker.inference, []
        with torch.cuda.stream(self._streams[stream]):
            for _ in range(batches):
                torch.cuda._sleep(20 * SPIN_CYCLES)
                self._start.record()
                for _ in range(calls):
                    call()
                self._end.record()
                self._end.synchronize()
                found.append(self._start.elapsed_time(self._end) * 1e3 / calls)
        return statistics.median(found)

    def kernels(self, name: str, replays: int = 5) -> dict[str, Any]:
        """Trace some replays of a graph; returns its kernels' names and durations, and the gaps before them.

        Each is the median over the replays. Tracing changes what it sees: only compare it with another trace.
        """
        torch = self._torch
        from torch.profiler import ProfilerActivity, profile

        for _ in range(20):
            self._block(name)
        with profile(activities=[ProfilerActivity.CUDA]) as traced:
            for _ in range(replays):
                self._graphs[name][0].replay()
            torch.cuda.synchronize()
        events = sorted(
            (event.time_range.start, event.time_range.end, event.name)
            for event in traced.events()
            if event.device_type == torch.autograd.DeviceType.CUDA
        )
        each = len(events) // replays
        runs = [events[number * each : (number + 1) * each] for number in range(replays)]
        columns = list(zip(*runs, strict=True))
        return {
            "names": [column[0][2][:60] for column in columns],
            "us": [statistics.median(end - start for start, end, _ in column) for column in columns],
            "span_us": statistics.median(run[-1][1] - run[0][0] for run in runs),
            "whole": math.isclose(len(events) / replays, each),
        }


def case_source(suite: str = "") -> Any:
    """Return where the cases come from: a suite's file, or the zoo with what the study adds to it."""
    from trtgate.suite.settings import Settings
    from trtgate.suite.suite_source import Added, SuiteSource

    if suite:
        return SuiteSource(root=str(Path(suite).parent), suites=(suite,))
    return SuiteSource(
        root=str(ROOT),
        zoo=("resnet18", "regnet_y_400mf", "mobilenet_v3_large", "vit_b_16"),
        added=(
            Added("mobilenet_v3_large", Settings(frontend="dynamo", precision="fp16", batch=8)),
            Added("regnet_y_400mf", _without_auxiliary_streams("fp16")),
            Added("vit_b_16", _without_auxiliary_streams("fp32")),
            Added("mobilenet_v3_large", Settings(frontend="eager", precision="fp32", batch=1)),
            Added("resnet18", Settings(frontend="eager", precision="fp16", batch=1)),
        ),
    )


def _without_auxiliary_streams(precision: str) -> Any:
    from trtgate.suite.settings import Settings

    return Settings(frontend="dynamo", precision=precision, batch=1, options={"max_aux_streams": 0})
