"""What is measured, as data: the records that workers send, sessions collect and files hold."""

from __future__ import annotations

from itertools import chain

import msgspec

from ..common.metrics import COLD_L2, COLD_START, COLD_START_CACHED, DEVICE, ENQUEUE, HOST, OF_LOAD, ON_HOST, sampled
from .program_part import ProgramPart


class GpuState(msgspec.Struct, frozen=True, kw_only=True):
    """What NVML said while one block ran. `throttle` is NVML's bit mask of clock event reasons."""

    sm_clock_mhz: int
    temperature_c: int
    power_w: float
    throttle: int


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks timed on one CUDA graph (on other clocks: one after the other), each the mean of `replays` calls."""

    blocks_us: list[float]
    replays: int
    void: list[str] = []
    """A reason for each block that was thrown away."""
    sm_mhz: list[float] = []
    """The SM clock beside each block, as a spin kernel counts it; empty where it was not read."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker measured of one case while it had the device."""

    clock: str
    captures: list[Capture]
    host_us: list[float]
    enqueue_us: list[float] = []
    tail_us: list[float] = []
    """Single inferences, on a GPU with an event around each: for p50, p90 and p99, not for the verdict."""
    states: list[GpuState] = []
    steady: bool = True
    canary_us: dict[str, float] = {}
    """Fixed work of known name, independent of the case: says whether the machine itself runs as before."""
    probe_us: float = 0.0
    """What launching kernels cost beside the blocks, as a graph of tiny kernels shows it: it tells the GPU's state."""
    spin_mhz: float = 0.0
    """The SM clock beside the blocks, as a spin kernel counts it; NVML says another."""
    seconds: float = 0.0
    note: str = ""
    starts_threads: bool = False
    """Whether calls start threads or processes that do some of their work; asked in warm-ups of pairs alone."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of a case that it built or loaded."""

    seconds: float
    gpu_memory_bytes: int | None = None
    ways: dict[str, str] = {}
    """As `Build` has them."""
    runtime_cache: str = ""
    """Where its engines have their kernels from: "artifact", the runtime cache that is stored with them; "none", they
    were compiled; "own", a cache that its user set up; empty without engines."""
    note: str = ""
    """What is to be said of that."""


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """Load and first inference of a case in a process that has only imported; what no file holds is built instead."""

    seconds: float
    host_bytes: int
    """How far the process's resident memory rose above what it was, at most."""
    gpu_bytes: int | None = None
    """What libraries had of the GPU in the end, and PyTorch's allocator at its peak; None on a CPU."""


class LoadLevel(msgspec.Struct, frozen=True, kw_only=True):
    """What so many threads of one process, or so many processes of one thread, got while all of them called at once."""

    threads: int
    processes: int
    throughput_per_s: float
    """Inferences a second, all together."""
    p50_us: float
    """Of single calls, as is `p99_us`."""
    p99_us: float
    calls: int = 0
    """How many calls the percentiles are of."""


class MemoryReadings(msgspec.Struct, frozen=True, kw_only=True):
    """Memory read again and again while a module is called, after it has warmed up."""

    calls: int
    """Between two readings."""
    host_bytes: list[int]
    """Of the process: resident, and swapped out."""
    torch_bytes: list[int] = []
    """What PyTorch's allocator has given out on the GPU; empty on a CPU."""
    gpu_bytes: list[int] = []
    """What is in use of the GPU, by all processes; empty on a CPU."""
    places: list[str] = []
    """Where Python allocated what stays, those with most of it first; found where host memory grew."""


class LoadLaunch(msgspec.Struct, frozen=True, kw_only=True):
    """What one fresh set of processes measured of a case under load."""

    most: int
    """How many threads, and processes, were at work at most."""
    levels: list[LoadLevel]
    readings: MemoryReadings | None = None
    """Of one more process, beside the first launch of a session."""
    cold_l2: list[Capture] = []
    """On a GPU: device latency where the L2 cache holds nothing of the case."""

    def at(self, *, threads: int, processes: int) -> LoadLevel:
        """Return a level. Raises StopIteration where there is none."""
        return next(one for one in self.levels if (one.threads, one.processes) == (threads, processes))


class CallCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What one warm call was counted to do on the host (`profiles/call_counts.py`)."""

    counts: dict[str, int] = {}
    """By metric."""
    places: dict[str, dict[str, int]] = {}
    """By metric: name and place → how many of the count are there; those with most of them."""
    problem: str = ""
    """Why some of it could not be counted."""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """What building a case and comparing it with eager gave."""

    build_s: float
    engines: int = 0
    engine_bytes: int = 0
    leaf_error: float | None = None
    """Relative L2 distance from eager's of that tensor of the output that is the furthest; None from a version that
    compared all tensors together."""
    leaves: dict[str, int] = {}
    """How many tensors and other values of the output were compared with eager's, by kind."""
    ways: dict[str, str] = {}
    """With `--trtgate-lifecycle`: the ways in which it was called and compared → why it was not; empty where it was."""
    remarks: tuple[str, ...] = ()
    """What changes how its figures are to be read: that nothing of an output was compared, for instance."""
    pytorch_operators: int | None = None
    """Operators of the lowered graph that stay in PyTorch; None where nothing goes to TensorRT."""
    builders: int = 1
    """Processes that built at the same time, this one counted: beside others `build_s` is not what it takes alone."""
    cached: bool = False
    """Whether it was not built now: `build_s` and `ready_s` are what it took when it was."""
    calls: CallCounts | None = None
    """What a call does on the host, counted when it was built or loaded to be checked."""
    ready_s: float = 0.0
    """Seconds until all was done: the model made, its module built, compared with eager and stored. Beside others it is
    longer."""
    program: ProgramPart | None = None
    """What it was made of beside the machine; None where that can't be said."""
    artifact: str = ""
    """The digest of the files that launches load; empty where nothing is stored, or it can't be said of what."""


class Quadruple(msgspec.Struct, frozen=True, kw_only=True):
    """Two turns of the base and two of the candidate, in the order ABBA or BAAB.

    What the host takes is of several short ones each: the quadruple goes through its order more than once.
    """

    base: list[Turn]
    candidate: list[Turn]


HOST_ALONE = "gpu_host_alone"
"""The clock of turns that read what the host sees, and leave device latency out."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """All turns of one worker with one case."""

    loaded: Loaded
    turns: list[Turn] = []


class CaseMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """One case in one session: several launches."""

    case_id: str
    launches: list[Launch]
    build: Build | None = None
    cold: list[ColdStart] = []
    """Of processes of their own, where they were asked for; kernels of TensorRT-RTX are compiled in each."""
    cold_cached: list[ColdStart] = []
    """Of further ones, which take kernels from the runtime cache of the artifact; empty where it has none."""
    load: list[LoadLaunch] = []
    """Of processes of their own, where it was asked for."""
    uuid: str = ""
    """The card's; empty for a CPU."""
    seconds: float = 0.0
    """How long all launches took, loading included."""

    @property
    def turns(self) -> list[Turn]:
        """All launches' turns."""
        return [turn for launch in self.launches for turn in launch.turns]

    @property
    def clocks(self) -> list[str]:
        """Names of the clocks used: more than one where launches differ, as when one could not capture a graph."""
        return sorted({turn.clock for turn in self.turns})

    @property
    def clock(self) -> str:
        """Names of the clocks used, joined when launches differ."""
        return "+".join(self.clocks)

    @property
    def on_gpu(self) -> bool:
        """Whether the samples are GPU time."""
        return not self.clock.startswith(ON_HOST)

    @property
    def primary(self) -> str:
        """The metric that decides whether a case is proven unchanged: device latency, on a CPU host latency."""
        return DEVICE if self.on_gpu else HOST

    @property
    def metrics(self) -> tuple[str, ...]:
        """The sampled metrics that it has."""
        found = sampled(gpu=self.on_gpu, cold=bool(self.cold), load=bool(self.load))
        of_l2 = [any(capture.blocks_us for capture in launch.cold_l2) for launch in self.load]
        lacking = {COLD_L2} if not all(of_l2) else set()
        lacking |= set() if self.cold_cached else {COLD_START_CACHED}
        return tuple(metric for metric in found if metric not in lacking)

    @property
    def runtime_cache(self) -> str:
        """Where engines had their kernels from, as `Loaded` has it, joined when launches differ."""
        return "+".join(sorted({launch.loaded.runtime_cache for launch in self.launches} - {""}))

    @property
    def most_at_once(self) -> int:
        """How many threads, and processes, called at once; 0 where no load was asked for."""
        return self.load[0].most if self.load else 0

    def blocks_us(self) -> list[float]:
        """Every block of the primary metric, in the order launch, turn, capture, block."""
        return list(chain.from_iterable(c.blocks_us for turn in self.turns for c in turn.captures))

    def samples(self, metric: str) -> list[list[list[float]]]:
        """Launch → capture → block values of a metric in microseconds; of cold starts in seconds.

        Blocks of a CPU, where nothing is captured, count as a capture each; host times of a GPU as one a turn.
        """
        if metric in (COLD_START, COLD_START_CACHED):
            return [[[one.seconds]] for one in (self.cold if metric == COLD_START else self.cold_cached)]
        if metric in OF_LOAD:
            return [[[_of_load(one, metric)]] for one in self.load]
        if metric == COLD_L2:
            return [[capture.blocks_us for capture in one.cold_l2 if capture.blocks_us] for one in self.load]
        if metric == self.primary:
            captures = [[c.blocks_us for turn in launch.turns for c in turn.captures] for launch in self.launches]
            groups = captures if self.on_gpu else [[[us] for us in chain.from_iterable(launch)] for launch in captures]
        else:
            name = {HOST: "host_us", ENQUEUE: "enqueue_us"}[metric]
            groups = [[getattr(turn, name) for turn in launch.turns] for launch in self.launches]
        return [[blocks for blocks in launch if blocks] for launch in groups if any(launch)]

    def states(self) -> list[GpuState]:
        """GPU states of all blocks."""
        return [state for turn in self.turns for state in turn.states]

    @property
    def notes(self) -> list[str]:
        """What its clocks and its loads have to say, each once."""
        of_loads = sorted({launch.loaded.note for launch in self.launches if launch.loaded.note})
        return sorted({turn.note for turn in self.turns if turn.note}) + of_loads

    def voids(self) -> list[str]:
        """Reasons of all blocks thrown away."""
        return [reason for turn in self.turns for capture in turn.captures for reason in capture.void]


def _of_load(launch: LoadLaunch, metric: str) -> float:
    """Return a metric of the highest level in microseconds; of throughput an inference's share of the time."""
    of, _, what = metric.partition("_")
    threads, processes = (launch.most, 1) if of == "threads" else (1, launch.most)
    level = launch.at(threads=threads, processes=processes)
    return {"throughput": 1e6 / level.throughput_per_s, "p50": level.p50_us, "p99": level.p99_us}[what]
