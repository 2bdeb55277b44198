"""Drives pairs of workers, base and candidate, that share a device: one active at a time, interleaved by quadruples."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from ..common.accelerator import Accelerator
from ..common.steps import OnStep
from ..records.measurement import CaseMeasurement, Launch, Loaded, Quadruple, Turn
from ..records.profile_record import Profile
from ..timing import measuring_loop
from ..timing.device_lock import device_turn
from ..verdict import LOOKS
from . import messages
from .comparison_side import Side
from .worker_handle import LaunchError, WorkerHandle

RETRIES = 20
"""How often a turn of which no block counts is asked for again."""
BASE, CANDIDATE = "base", "candidate"
CONTEXT_BYTES = 1 << 30
"""What a process takes on a GPU beside a case: its context, and what the libraries load."""
UNKNOWN_FOOTPRINT_BYTES = 2 << 30


class SideError(LaunchError):
    """A worker of one side failed; `side` says whose."""

    def __init__(self, side: str, reason: str) -> None:
        super().__init__(reason)
        self.side = side


class DisturbedError(LaunchError):
    """No block of a turn counted, again and again; nobody's code is at fault."""


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """What either side loads: a stored compiled module, or None to build."""

    base: Path | None
    candidate: Path | None


class Pair:
    """Two workers. Use `PairSession`."""

    def __init__(self, base: WorkerHandle, candidate: WorkerHandle, timeout_s: float, *, gpu: bool) -> None:
        self.workers = {BASE: base, CANDIDATE: candidate}
        self._timeout_s = timeout_s
        self._plan = measuring_loop.PAIR_ON_GPU if gpu else measuring_loop.PAIR_ON_CPU
        self._warm_up = measuring_loop.WARM_UP_ON_GPU if gpu else measuring_loop.WARM_UP_ON_CPU
        self.loaded: dict[str, Loaded] = {}
        self.warm: dict[str, Turn] = {}
        self.quadruples: list[Quadruple] = []

    def greet(self) -> dict[str, list[str]]:
        """Wait until both have imported their suites; returns the cases of each. Raises SideError."""
        found = {}
        for name, worker in self.workers.items():
            with _blaming(name):
                found[name] = worker.greet(self._timeout_s)
        return found

    def build(self, case_id: str, folders: dict[str, Path]) -> dict[str, messages.BuiltReply]:
        """Build a case on the sides that have a folder, one after the other: neither disturbs the other's time."""
        self.greet()
        built = {}
        for name in random.sample(sorted(folders), len(folders)):
            with _blaming(name):
                request = messages.BuildCase(case_id=case_id, folder=str(folders[name]))
                built[name] = self.workers[name].ask(request, messages.BuiltReply, self._timeout_s, "building")
        return built

    def profile(self, case_id: str) -> dict[str, Profile]:
        """Profile a case on either side, which builds it; only while the device's lock is held."""
        self.greet()
        found = {}
        for name, worker in self.workers.items():
            with _blaming(name):
                request = messages.RecordProfile(case_id=case_id)
                found[name] = worker.ask(request, messages.ProfileReply, self._timeout_s, "profiling").profile
        return found

    def load(self, case_id: str, artifacts: Artifacts, *, measure_memory: bool = False) -> None:
        """Load a case on both sides: at once, or one after the other where the memory that each takes is asked for."""
        self.greet()
        self.loaded, self.warm, self.quadruples = {}, {}, []
        for names in ((BASE,), (CANDIDATE,)) if measure_memory else ((BASE, CANDIDATE),):
            self._ask_to_load(case_id, artifacts, names, measure_memory=measure_memory)
            self.await_loaded(names)

    def begin_load(self, case_id: str, artifacts: Artifacts) -> None:
        """Ask both sides to load, and return at once; `await_loaded` before anything else."""
        self.greet()
        self.loaded, self.warm, self.quadruples = {}, {}, []
        self._ask_to_load(case_id, artifacts, (BASE, CANDIDATE), measure_memory=False)

    def _ask_to_load(self, case_id: str, artifacts: Artifacts, names: Sequence[str], *, measure_memory: bool) -> None:
        for name in names:
            artifact = artifacts.base if name == BASE else artifacts.candidate
            self.workers[name].send(
                messages.Load(
                    case_id=case_id,
                    artifact=None if artifact is None else str(artifact),
                    measure_memory=measure_memory,
                )
            )

    def await_loaded(self, names: Sequence[str] = (BASE, CANDIDATE)) -> None:
        """Wait until the sides have loaded what they were asked to."""
        for name in names:
            with _blaming(name):
                reply = self.workers[name].receive(messages.LoadedReply, self._timeout_s, "loading")
                self.loaded[name] = reply.loaded

    def delay(self, share: float) -> float:
        """Make the candidate slower by a share of its latency from here on; returns the share that came of it.

        Only while the device's lock is held. 0 takes the delay away again.
        """
        with _blaming(CANDIDATE):
            request = messages.Delay(share=share)
            return self.workers[CANDIDATE].ask(request, messages.DelayedReply, self._timeout_s, "delaying").share

    def unload(self) -> None:
        """Free the case on both sides."""
        for name, worker in self.workers.items():
            with _blaming(name):
                worker.ask(messages.Unload(), messages.UnloadedReply, self._timeout_s, "unloading")

    def warm_up(self, rng: random.Random) -> None:
        """Warm either side up; call it, and `quadruple`, only while the device's lock is held."""
        for name in (BASE, CANDIDATE):
            self.warm[name] = self._turn(name, self._warm_up, rng)

    def quadruple(self, rng: random.Random) -> Quadruple:
        """Measure ABBA or BAAB, at random; the result is kept in `quadruples` too."""
        order = rng.choice(((BASE, CANDIDATE, CANDIDATE, BASE), (CANDIDATE, BASE, BASE, CANDIDATE)))
        turns: dict[str, list[Turn]] = {BASE: [], CANDIDATE: []}
        for name in order:
            turns[name].append(self._turn(name, self._plan, rng))
        found = Quadruple(base=turns[BASE], candidate=turns[CANDIDATE])
        self.quadruples.append(found)
        return found

    def _turn(self, name: str, plan: measuring_loop.Plan, rng: random.Random) -> Turn:
        with _blaming(name):
            for _ in range(RETRIES):
                request = messages.Measure(plan=plan, seed=rng.getrandbits(32))
                turn = self.workers[name].ask(request, messages.TurnReply, self._timeout_s, "measuring").turn
                if all(capture.blocks_us for capture in turn.captures):
                    return turn
        reason = next(reason for capture in turn.captures for reason in capture.void)
        raise DisturbedError(f"blocks of the {name} do not count: {reason}")

    def measurement(self, case_id: str, side: str) -> CaseMeasurement:
        """Return what was measured of one side as one launch; its warm-up lends its canary, and no samples."""
        turns = [turn for quadruple in self.quadruples for turn in getattr(quadruple, side)]
        warm = self.warm[side]
        turns = [msgspec.structs.replace(turn, canary_us=warm.canary_us) for turn in turns]
        return CaseMeasurement(case_id=case_id, launches=[Launch(loaded=self.loaded[side], turns=turns)])

    def close(self) -> None:
        """End both workers."""
        for worker in self.workers.values():
            worker.kill()


@contextmanager
def _blaming(side: str) -> Iterator[None]:
    try:
        yield
    except LaunchError as error:
        raise SideError(side, str(error)) from error


class PairSession:
    """A resident pair for all cases, and fresh pairs where a suspicion asks for them.

    Parameters
    ----------
    folder
        Where the workers' logs go.
    timeout_s
        The longest that a single step of a worker may take.

    """

    def __init__(
        self, base: Side, candidate: Side, accelerator: Accelerator, folder: Path, *, timeout_s: float
    ) -> None:
        self._sides = {BASE: base, CANDIDATE: candidate}
        self._accelerator = accelerator
        self._folder = folder
        self._timeout_s = timeout_s
        self._gpu = accelerator.kind == "gpu"
        self._started = 0
        self._pairs: list[Pair] = []
        self._stopped = False
        self._resident: Pair | None = None
        self._footprint_bytes: dict[str, int] = {}
        self.rng = random.Random()

    def resident(self) -> Pair:
        """Return the pair that stays, started now if there is none: it imports while the caller goes on."""
        if self._resident is None:
            self._resident = self.start(1)[0]
        return self._resident

    def start(self, count: int) -> list[Pair]:
        """Start fresh pairs, all at once; they import side by side, and sleep until they are asked."""
        self._folder.mkdir(parents=True, exist_ok=True)
        made = []
        for _ in range(count):
            self._started += 1
            workers = {name: self._worker(side) for name, side in self._sides.items()}
            made.append(Pair(workers[BASE], workers[CANDIDATE], self._timeout_s, gpu=self._gpu))
        self._pairs += made
        return made

    def _worker(self, side: Side) -> WorkerHandle:
        log = self._folder / f"{side.name}-{self._started}.log"
        return WorkerHandle(self._started, side, side.hello(self._accelerator), log)

    def end(self, pair: Pair) -> None:
        """End a pair."""
        pair.close()
        self._pairs = [other for other in self._pairs if other is not pair]
        if pair is self._resident:
            self._resident = None

    def stop(self) -> None:
        """End the processes under another thread's hands: it sees them gone, and is to call `close`."""
        self._stopped = True
        for pair in list(self._pairs):
            for worker in pair.workers.values():
                worker.stop()

    def close(self) -> None:
        """End all pairs."""
        for pair in list(self._pairs):
            self.end(pair)

    def device(self, step: OnStep = lambda _waiting: None, *, shared: bool = False) -> AbstractContextManager[None]:
        """Within: no other trtgate process times on the device, nor, unless it is `shared`, builds there."""

        def waiting(text: str) -> None:
            if self._stopped:
                raise SideError(CANDIDATE, "the run ended")
            step(text)

        return device_turn(self._accelerator.lock_name, self._timeout_s, waiting, shared=shared)

    def greet(self, pair: Pair) -> dict[str, list[str]]:
        """Return the cases of either side's suite. Raises SideError; the pair is ended then."""
        with self._ending(pair):
            return pair.greet()

    def unload(self, pair: Pair) -> None:
        """Free a case on both sides. Raises SideError; the pair is ended then."""
        with self._ending(pair):
            pair.unload()

    @contextmanager
    def _ending(self, pair: Pair) -> Iterator[None]:
        """Within: whatever goes wrong ends a pair, so that the next case starts clean."""
        try:
            yield
        except BaseException:
            self.end(pair)
            raise

    def build(self, pair: Pair, case_id: str, folders: dict[str, Path]) -> dict[str, messages.BuiltReply]:
        """Build a case on the sides that have a folder. Raises SideError; the pair is ended then."""
        with self._ending(pair), self.device(shared=True):
            return pair.build(case_id, folders)

    def profile(self, case_id: str, step: OnStep) -> dict[str, Profile]:
        """Profile a case on either side, in a pair of its own: a profiler leaves traces. Raises SideError."""
        (pair,) = self.start(1)
        try:
            with self.device(step):
                step("profiling base and candidate")
                return pair.profile(case_id)
        finally:
            self.end(pair)

    def load_resident(self, case_id: str, artifacts: Artifacts, *, measure_memory: bool = True) -> Pair:
        """Load a case in the resident pair, measuring the memory that it takes. Raises SideError; the pair is ended."""
        pair = self.resident()
        with self._ending(pair), self.device(shared=not measure_memory):  # memory is the whole device's
            pair.load(case_id, artifacts, measure_memory=measure_memory)
        taken = max(loaded.gpu_memory_bytes or 0 for loaded in pair.loaded.values())
        if taken:
            self._footprint_bytes[case_id] = taken
        return pair

    def replace_resident(self, pair: Pair) -> None:
        """End the resident pair, and let one that was started before take its place."""
        self.end(self.resident())
        self._resident = pair

    def at_once(self, case_id: str) -> int:
        """Return in how many pairs the case may be loaded at the same time: three fifths of the device's memory."""
        if not self._gpu:
            return LOOKS[0]
        a_pair = 2 * (self._footprint_bytes.get(case_id, UNKNOWN_FOOTPRINT_BYTES) + CONTEXT_BYTES)
        return max(1, int(0.6 * self._accelerator.memory_bytes / a_pair))

    def load_fresh(self, case_id: str, artifacts: Artifacts) -> dict[str, Loaded]:
        """Load a case in a pair of its own, measuring the memory. Raises SideError."""
        (pair,) = self.start(1)
        try:
            with self.device():
                pair.load(case_id, artifacts, measure_memory=True)
            return pair.loaded
        finally:
            self.end(pair)

    def load(self, pairs: Sequence[Pair], case_id: str, artifacts: Artifacts) -> None:
        """Load a case in several pairs at once. Raises SideError; all of them are ended then."""
        try:
            with self.device(shared=True):
                for pair in pairs:
                    pair.begin_load(case_id, artifacts)
                for pair in pairs:
                    pair.await_loaded()
        except BaseException:
            for pair in pairs:
                self.end(pair)
            raise

    def measure(self, pair: Pair, enough: Callable[[Pair], bool], step: OnStep, *, delay: float = 0.0) -> float:
        """Measure quadruples of what is loaded until `enough` says so after one of them.

        `delay` makes the candidate slower on purpose; what came of it is returned. Raises SideError or DisturbedError;
        the pair is ended then, and the session goes on.
        """
        with self._ending(pair), self.device(step):
            pair.quadruples = []
            delayed = pair.delay(delay) if delay else 0.0
            step("warming up")
            pair.warm_up(self.rng)
            step("measuring base and candidate in turns")
            while True:
                pair.quadruple(self.rng)
                if enough(pair):
                    break
            if delay:
                pair.delay(0.0)
            return delayed
